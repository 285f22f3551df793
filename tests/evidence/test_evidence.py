"""The score bank and the means over it: exact, shared, bit-equal whatever the company, sound after damage."""

import multiprocessing

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprune.core.errors import ConfigError, ModelError
from fedprune.evidence.bank import Bank
from fedprune.evidence.evidence import Evidence
from fedprune.evidence.measure import Pass, measure
from fedprune.evidence.statistics import STATISTICS
from fedprune.vit.units import row_length, unpack
from tests.evidence.explicit_gates import pack
from tests.evidence.tiny import make_base, make_images


def make_evidence(folder, **options):
    return Evidence(make_base(), make_images(), folder, images_id="images", batch_size=8, **options)


def test_stored_rows_are_the_measured_ones_to_half_precision(tmp_path):
    evidence = make_evidence(tmp_path)
    base, images = evidence.base, evidence.images
    how = Pass(precision="fp32", batch_size=8)
    exact = np.concatenate(
        [
            r["gradient"]
            for _, r in measure(base.model, base.shape, base.preprocess, images, np.arange(9), ("gradient",), how)
        ]
    )
    stored = evidence.rows("taylor", np.arange(9))
    np.testing.assert_allclose(stored, exact, rtol=5e-4, atol=1e-6 * np.abs(exact).max())
    assert np.array_equal(evidence.rows("taylor_abs", np.arange(9)), np.abs(stored))
    assert np.array_equal(evidence.rows("taylor_square", np.arange(9)), stored**2)


def test_mean_is_the_weighted_mean_of_rows(tmp_path):
    evidence = make_evidence(tmp_path)
    indices, weights = np.array([5, 3, 5, 20]), np.array([1.0, 2.0, 3.0, 4.0])
    rows = evidence.rows("taylor_abs", indices).astype(np.float64)
    expected = (weights[:, None] * rows).sum(0) / 10
    np.testing.assert_allclose(pack(evidence.mean("taylor_abs", indices, weights)), expected, rtol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("statistic", STATISTICS)
def test_a_device_is_bit_equal_alone_with_others_and_in_any_order(tmp_path, statistic, precision):
    generator = np.random.default_rng(0)
    proxies = [generator.choice(40, 9, replace=False) for _ in range(10)]
    alone = make_evidence(tmp_path / "alone", precision=precision).mean_row(statistic, proxies[3])
    together = make_evidence(tmp_path / "together", precision=precision)
    together.prepare(np.concatenate(proxies), (statistic,))
    assert np.array_equal(together.mean_row(statistic, proxies[3][::-1]), alone)
    backwards = make_evidence(tmp_path / "backwards", precision=precision)
    means = [backwards.mean_row(statistic, proxy) for proxy in reversed(proxies)]
    assert np.array_equal(means[6], alone)


def test_centred_gradients_are_those_about_the_mean(tmp_path):
    """Checked on the definition: the derivative by a gate on `a - mean` with the mean added back outside the gate."""
    evidence = make_evidence(tmp_path, precision="fp64")
    indices, block = np.arange(12), evidence.base.model.blocks[1]
    means = evidence.mean_row("activation_mean", indices)
    rows = unpack(evidence.rows("centred_abs", indices), evidence.base.shape).blocks[1]
    mean = torch.from_numpy(unpack(means, evidence.base.shape).blocks[1].neurons)
    model = evidence.base.model.double()
    pixels = evidence.base.preprocess(evidence.images.pixels[3:4]).double()
    gate = torch.ones(len(mean), dtype=torch.float64, requires_grad=True)
    handle = block.mlp.fc2.register_forward_pre_hook(lambda module, inputs: ((inputs[0] - mean) * gate + mean,))
    loss = torch.nn.functional.cross_entropy(model(pixels), torch.from_numpy(evidence.images.labels[3:4]))
    handle.remove()
    expected = torch.autograd.grad(loss, gate)[0].numpy()
    np.testing.assert_allclose(rows.neurons[3], np.abs(expected), rtol=2e-3, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(rows.mlp[3], abs(expected.sum()), rtol=2e-3, atol=2e-3 * np.abs(expected).max())


def test_only_missing_images_are_measured(tmp_path):
    evidence = make_evidence(tmp_path)
    evidence.prepare(np.array([1, 2, 3, 3]))
    evidence.prepare(np.array([3, 2, 4]))
    assert evidence.measured == 4
    again = make_evidence(tmp_path)
    again.prepare(np.arange(1, 5))
    assert again.measured == 0


def test_one_pass_serves_several_families(tmp_path):
    evidence = make_evidence(tmp_path)
    evidence.prepare(np.arange(6), ("taylor_abs", "activation", "features", "cosine"))
    assert evidence.measured == 6
    evidence.prepare(np.arange(6), ("taylor_square", "activation"))
    assert evidence.measured == 6


@pytest.mark.parametrize("precision", ["bf16", "fp32", "fp64"])
def test_features_are_what_the_classifier_reads_in_every_precision(tmp_path, precision):
    evidence = make_evidence(tmp_path, precision=precision)
    model, pixels = evidence.base.model.double(), evidence.base.preprocess(evidence.images.pixels[:6]).double()
    expected = model.forward_head(model.forward_features(pixels), pre_logits=True).detach().numpy()
    found = evidence.rows("features", np.arange(6))
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-2 if precision == "bf16" else 2e-3)


def test_another_loss_base_or_image_set_has_its_own_rows(tmp_path):
    evidence, indices = make_evidence(tmp_path), np.arange(8)
    rows = evidence.rows("taylor", indices)
    for other in (
        evidence.under("entropy"),
        evidence.under("labels", (0, 1)),
        Evidence(make_base(seed=1), make_images(), tmp_path, images_id="images", batch_size=8),
        Evidence(make_base(), make_images(seed=1), tmp_path, images_id="others", batch_size=8),
    ):
        assert not np.allclose(other.rows("taylor", indices), rows)
    assert evidence.under("labels") is evidence


def test_an_image_of_no_asked_class_has_no_label_loss(tmp_path):
    evidence = make_evidence(tmp_path).under("labels", (0, 1))
    foreign = np.isin(evidence.images.labels, (0, 1), invert=True)
    largest = np.abs(evidence.rows("taylor", np.arange(40))).max(1)
    assert (largest[foreign] == 0).all()
    assert (largest[~foreign] > 0).all()


def test_kl_reference_follows_from_the_image_alone(tmp_path):
    first = make_evidence(tmp_path / "a").under("kl").rows("taylor", np.array([4, 7, 30]))
    second = make_evidence(tmp_path / "b").under("kl").rows("taylor", np.array([7]))
    assert np.array_equal(first[1], second[0])
    assert np.abs(second).max() > 0


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_damaged_segment_is_computed_again(tmp_path, damage):
    before = make_evidence(tmp_path).rows("taylor", np.arange(5))
    (segment,) = tmp_path.glob("evidence/gradient-*/*.npy")
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes({"flip": bytes(content), "truncate": bytes(content[:100]), "empty": b""}[damage])
    evidence = make_evidence(tmp_path)
    assert np.array_equal(evidence.rows("taylor", np.arange(5)), before)
    assert evidence.measured == 5


def _measure_in_process(folder, indices, results):
    evidence = make_evidence(folder)
    evidence.prepare(indices)
    results.put(evidence.measured)


def test_two_processes_share_one_bank(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=_measure_in_process, args=(tmp_path, np.arange(32), results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert sorted(results.get(timeout=5) for _ in workers) == [0, 32]
    assert make_evidence(tmp_path).rows("taylor", np.arange(32)).shape == (32, row_length(make_base().shape))


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    with pytest.raises(ModelError, match="not finite"):
        Bank(tmp_path, 2).append(np.array([0]), np.array([[1.0, np.nan]]))


def test_wrong_names_are_refused_with_the_right_ones(tmp_path):
    with pytest.raises(ConfigError, match="taylor_abs"):
        make_evidence(tmp_path).rows("taylr", np.arange(2))
    with pytest.raises(ValueError, match="entropy"):
        make_evidence(tmp_path, loss="guess")


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False), min_size=3, max_size=3),
        min_size=1,
        max_size=6,
    )
)
def test_bank_keeps_rows_to_half_precision_of_their_largest(tmp_path_factory, rows):
    folder, values = tmp_path_factory.mktemp("bank"), np.array(rows)
    bank = Bank(folder, 3)
    bank.append(np.arange(len(values)), values)
    read = Bank(folder, 3)
    assert len(read.missing(np.arange(len(values) + 1))) == 1
    largest = np.abs(values).max(1, keepdims=True)
    np.testing.assert_array_less(
        np.abs(read.read(np.arange(len(values))) - values), 6e-4 * np.abs(values) + 1e-9 * largest + 1e-40
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="There is no GPU here; run this test where there is one.")
def test_a_gpu_gives_the_same_within_tolerance(tmp_path):
    indices = np.arange(20)
    for statistic in ("taylor_abs", "centred_abs", "activation", "skip"):
        here = make_evidence(tmp_path, precision="fp32").mean_row(statistic, indices)
        there = make_evidence(tmp_path, precision="fp32", device="cuda").mean_row(statistic, indices)
        np.testing.assert_allclose(there, here, rtol=5e-3, atol=1e-4 * np.abs(here).max())
