"""The shared training loop: it learns, meets its ratio, is stored once and read back."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedprune.core.progress import listening
from fedprune.core.registry import lookup
from fedprune.data.glyphs import Glyphs
from fedprune.data.images import ArrayImages
from fedprune.tokens.counts import count_reduced_macs
from fedprune.tokens.dynamicvit import share_penalty
from fedprune.tokens.reduced import reduce
from fedprune.tokens.reducer import TokenRecipe, Trace
from fedprune.tokens.selector import LearnedStage
from fedprune.tokens.trained import trained
from fedprune.tokens.training import KEPT, Public, distillation, train
from fedprune.vit.base import Base
from fedprune.vit.base_file import load_base
from fedprune.vit.base_glyphs import PACKAGED
from fedprune.vit.counts import count_macs
from tests.tokens.vits import random_base

RECIPE = TokenRecipe(steps=48, batch_size=16, learning_rate=1e-2, precision="fp32")
TRAINED = ("dynamicvit", "spvit", "heatvit", "ltmp")
ALL = np.arange(64)


@pytest.fixture(scope="module")
def photos():
    draw = np.random.default_rng(0)
    return ArrayImages(draw.integers(0, 256, (64, 24, 24, 3), dtype=np.uint8), draw.integers(0, 7, 64))


@pytest.fixture(scope="module")
def base() -> Base:
    made = random_base()
    return replace(made, model=made.model.float())


def public(photos, count=64):
    return Public(photos, np.arange(count), "photos", photos)


def selector(name, recipe=RECIPE, **options):
    return lookup("tokens", name)(train="selector", training=recipe, **options)


@pytest.mark.parametrize("name", TRAINED)
def test_training_a_selector_lowers_the_loss_and_leaves_the_backbone_alone(name, base, photos):
    before = {key: value.clone() for key, value in base.model.state_dict().items()}
    model = reduce(base.model, base.shape, selector(name, keep=0.6))
    losses = train(model, base, photos, ALL, seed=0)
    assert len(losses) == RECIPE.steps
    assert np.mean(losses[-12:]) < np.mean(losses[:12])
    assert all(torch.equal(value, before[key]) for key, value in base.model.state_dict().items())
    assert not model.masked
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", ["spvit", "evit", "evo_vit", "none"])
def test_training_everything_gives_one_base_for_all_devices(name, base, photos, tmp_path):
    recipe = replace(RECIPE, steps=24, batch_size=32, backbone_rate=3e-3)
    reducer = lookup("tokens", name)(keep=1.0 if name == "none" else 0.6, train="all", training=recipe)
    before = {key: value.clone() for key, value in base.model.state_dict().items()}
    done = trained(reducer, base, public(photos), tmp_path)
    again = trained(reducer, base, public(photos), tmp_path)
    assert all(torch.equal(value, before[key]) for key, value in base.model.state_dict().items())
    assert done.base.fingerprint == again.base.fingerprint != base.fingerprint
    weights = done.base.model.state_dict()
    assert {key for key, value in weights.items() if torch.equal(value, before[key])} == set(KEPT)
    assert (done.parameters is not None) == (name == "spvit")

    def mean_loss(model, stages):
        reduced = reduce(model, base.shape, reducer, parameters=stages)
        reduced.masked = True
        with torch.no_grad():
            return float(
                distillation(reduced, base, base.preprocess(photos.read(ALL)), torch.from_numpy(photos.labels))
            )

    assert mean_loss(done.base.model, done.parameters) < mean_loss(base.model, done.parameters)


def test_the_backbone_may_wait_for_the_selector(base, photos, tmp_path):
    recipe = replace(RECIPE, steps=4, frozen=0.99)
    done = trained(lookup("tokens", "spvit")(keep=0.6, training=recipe), base, public(photos), tmp_path)
    assert all(torch.equal(value, base.model.state_dict()[key]) for key, value in done.base.model.state_dict().items())


@pytest.mark.parametrize("name", ["dynamicvit", "spvit"])
def test_as_many_tokens_stay_in_training_as_at_inference(name, base, photos):
    recipe = replace(RECIPE, steps=100, token_weight=0.0)
    model = reduce(base.model, base.shape, selector(name, recipe, keep=0.6))
    pixels = base.preprocess(photos.read(ALL))

    def shares(drawn):
        model.stages.train(drawn)
        model.masked = True
        trace = model.run(pixels).trace
        model.stages.eval()
        return [
            float((trace.attending[block] - trace.protected[block]).detach().mean()) / 36 for block in sorted(model.at)
        ]

    before = shares(True)
    train(model, base, photos, ALL, seed=0)
    assert shares(False) == pytest.approx([21 / 36, 12 / 36, 7 / 36])
    gaps = [abs(drawn - kept) for drawn, kept in zip(shares(True), shares(False), strict=True)]
    assert max(gaps) < 0.06 < max(abs(drawn - kept) for drawn, kept in zip(before, shares(False), strict=True))


@pytest.mark.parametrize(("name", "steps"), [("spvit", 60), pytest.param("dynamicvit", 240, marks=pytest.mark.slow)])
def test_every_stage_of_a_trained_order_beats_a_random_one(name, steps):
    dataset = Glyphs(train_per_class=10, test_per_class=1).load()
    base = load_base(PACKAGED)
    order = np.random.default_rng(0).permutation(len(dataset.train))
    recipe = replace(RECIPE, steps=steps, batch_size=32, learning_rate=5e-3)
    model = reduce(base.model, base.shape, selector(name, recipe, keep=0.7))
    train(model, base, dataset.train, order[:1280], seed=0)
    unseen = base.preprocess(dataset.train.read(order[1280:]))

    def divergence():
        with torch.no_grad():
            wanted, answer = base.model(unseen).log_softmax(1), model(unseen).log_softmax(1)
        return float(torch.nn.functional.kl_div(answer, wanted, log_target=True, reduction="batchmean"))

    found, noise, others = divergence(), torch.Generator().manual_seed(0), {}
    for block, stage in model.at.items():
        best = stage.best
        stage.best = lambda logits, best=best: best(torch.rand(logits.shape, generator=noise))
        others[block] = divergence()
        stage.best = best
    assert found < 0.9 * min(others.values()), others


def test_ltmp_meets_its_macs_and_fixes_feasible_counts(base, photos):
    recipe = replace(RECIPE, steps=64, learning_rate=1e-1)
    model = reduce(base.model, base.shape, selector("ltmp", recipe, keep=0.6, budget_weight=100.0))
    train(model, base, photos, ALL, seed=0)
    share = count_reduced_macs(model) / count_macs(base.shape)
    assert 0.45 < share < 0.75
    logits = model(base.preprocess(photos.read(np.arange(4))))
    assert logits.isfinite().all()


@pytest.mark.parametrize("way", ["selector", "all"])
def test_a_training_is_done_once_and_read_back(way, base, photos, tmp_path):
    recipe = replace(RECIPE, steps=3)
    reducer = lookup("tokens", "spvit")(keep=0.6, train=way, training=recipe)
    first = trained(reducer, base, public(photos), tmp_path)
    files = list(tmp_path.rglob("*.safetensors"))
    assert len(files) == 1
    stamp = files[0].stat().st_mtime_ns
    again = trained(reducer, base, public(photos), tmp_path)
    assert files[0].stat().st_mtime_ns == stamp
    fresh = trained(reducer, base, public(photos), tmp_path / "elsewhere")
    for other in (again, fresh):
        assert all(torch.equal(first.parameters[name], other.parameters[name]) for name in first.parameters)
        assert other.base.fingerprint == first.base.fingerprint, "a training must repeat to the bit"
    assert (first.base is base) == (way == "selector")
    for other in (replace(reducer, keep=0.5), replace(reducer, package="sum")):
        trained(other, base, public(photos), tmp_path)
    trained(reducer, base, public(photos, 48), tmp_path)
    trained(reducer, base, public(photos), tmp_path, seed=1)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 6  # 5 here, 1 elsewhere


def test_a_training_says_how_far_it_is(base, photos, tmp_path):
    class Heard:
        def __init__(self):
            self.phases, self.steps = [], 0

        def phase(self, name, total):
            self.phases.append((name, total))

        def advance(self, name, status="ok", steps=1):
            self.steps += steps

    heard = Heard()
    with listening(heard):
        trained(selector("spvit", replace(RECIPE, steps=3), keep=0.6), base, public(photos), tmp_path)
    assert heard.phases == [("token training", 3)]
    assert heard.steps == 3


def test_a_damaged_file_is_trained_again(base, photos, tmp_path):
    reducer = selector("spvit", replace(RECIPE, steps=3), keep=0.6)
    first = trained(reducer, base, public(photos), tmp_path).parameters
    path = next(tmp_path.rglob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:100])
    again = trained(reducer, base, public(photos), tmp_path).parameters
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_what_has_nothing_to_train_is_not_trained(base, photos, tmp_path):
    for reducer in (
        selector("evit"),
        selector("spvit", keep=1.0),
        lookup("tokens", "tome")(),
        lookup("tokens", "none")(),
    ):
        done = trained(reducer, base, public(photos), tmp_path)
        assert done.base is base
        assert done.parameters is None
    assert not list(tmp_path.rglob("*"))


def test_noise_is_only_drawn_in_training(base, photos):
    reducer = lookup("tokens", "spvit")(keep=0.6)
    model = reduce(base.model, base.shape, reducer)
    for stage in model.at.values():
        assert isinstance(stage, LearnedStage)
        stage.generator = torch.Generator().manual_seed(0)
    pixels = base.preprocess(photos.read(np.arange(4)))
    assert torch.equal(model(pixels), model(pixels))
    model.masked = True
    model.stages.train()
    assert not torch.equal(model(pixels), model(pixels))


def test_the_loss_of_an_unreduced_model_is_its_cross_entropy_and_its_penalty(base, photos):
    pixels, labels = base.preprocess(photos.read(np.arange(4))), torch.from_numpy(photos.labels[:4])
    for weight in (0.0, 2.0):
        reducer = selector("ltmp", replace(RECIPE, label_weight=weight), keep=0.5, budget_weight=4.0)
        model = reduce(base.model, base.shape, reducer)
        model.masked = True
        model.stages.train()
        expected = weight * torch.nn.functional.cross_entropy(base.model(pixels), labels) + 4.0 * 0.5**2
        assert float(distillation(model, base, pixels, labels)) == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize(("name", "expected"), [("spvit", 0.0), ("dynamicvit", 0.25**2)])
def test_the_ratio_loss_holds_every_image_to_its_share_or_the_batch_on_average(name, expected):
    counts = (torch.tensor([13.0, 5.0]),)  # 16 patches and the class token: shares of 3/4 and 1/4 in two images
    trace = Trace(counts, counts, counts, counts, (torch.ones(2),))
    each_image = lookup("tokens", name).each_image
    assert float(share_penalty(trace, {0: 0}, {0: 0.5}, 16, each_image)) == pytest.approx(expected)


def test_ragged_counts_meet_the_ratio_in_the_mean_of_the_training_images(base, photos):
    model = reduce(base.model, base.shape, selector("spvit", replace(RECIPE, steps=4), keep=0.6))
    train(model, base, photos, ALL, seed=0)
    trace = model.set_ragged(True).run(base.preprocess(photos.read(np.arange(64)))).trace
    for block in sorted(model.at):
        kept = float((trace.mlp[block] - trace.protected[block]).mean())
        assert kept == pytest.approx(model.at[block].count, abs=0.2)
        assert trace.mlp[block].unique().numel() > 1
