"""The shared training loop: it learns, meets its ratio, is stored once and read back."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedprune.core.registry import lookup
from fedprune.data.images import ArrayImages
from fedprune.tokens.dynamicvit import share_penalty
from fedprune.tokens.reduced import reduce
from fedprune.tokens.reducer import SelectorRecipe, Trace
from fedprune.tokens.selector import LearnedStage
from fedprune.tokens.training import Public, distillation, train, trained_parameters
from fedprune.vit.base import Base
from tests.tokens.vits import random_base

RECIPE = SelectorRecipe(epochs=12, images=64, batch_size=16, learning_rate=1e-2, precision="fp32")
TRAINED = ("dynamicvit", "spvit", "heatvit", "ltmp")


@pytest.fixture(scope="module")
def photos():
    draw = np.random.default_rng(0)
    return ArrayImages(draw.integers(0, 256, (64, 24, 24, 3), dtype=np.uint8), draw.integers(0, 7, 64))


@pytest.fixture(scope="module")
def base() -> Base:
    made = random_base()
    return replace(made, model=made.model.float())


def public(photos, count=64):
    return Public(photos, np.arange(count), "photos")


@pytest.mark.parametrize("name", TRAINED)
def test_training_lowers_the_loss_and_leaves_the_backbone_alone(name, base, photos):
    before = {key: value.clone() for key, value in base.model.state_dict().items()}
    reducer = lookup("tokens", name)(keep=0.6, training=RECIPE)
    model = reduce(base.model, base.shape, reducer)
    losses = train(model, reducer, RECIPE, base.preprocess, photos, np.arange(64), seed=0)
    assert losses[-1] < losses[0]
    assert all(torch.equal(value, before[key]) for key, value in base.model.state_dict().items())
    assert not model.masked
    assert not model.stages.training


def test_the_ratio_loss_pulls_the_mean_share_to_its_target(base, photos):
    recipe = replace(RECIPE, epochs=25, token_weight=0.0)
    reducer = lookup("tokens", "dynamicvit")(keep=0.6, ratio_weight=50.0, training=recipe)
    model = reduce(base.model, base.shape, reducer)
    pixels = base.preprocess(photos.read(np.arange(64)))

    def gaps():
        model.stages.train()
        model.masked = True
        trace = model.run(pixels).trace
        shares = [(trace.attending[block].mean() - 1) / 36 for block in sorted(model.at)]
        model.stages.eval()
        model.masked = False
        return sum(
            abs(float(share.detach()) - target) for share, target in zip(shares, (0.6, 0.36, 0.216), strict=True)
        )

    start = gaps()
    train(model, reducer, recipe, base.preprocess, photos, np.arange(64), seed=0)
    assert gaps() < min(0.35, start)


def test_ltmp_meets_its_macs_and_fixes_feasible_counts(base, photos):
    from fedprune.tokens.counts import count_reduced_macs
    from fedprune.vit.counts import count_macs

    recipe = replace(RECIPE, epochs=16, learning_rate=1e-1)
    reducer = lookup("tokens", "ltmp")(keep=0.6, budget_weight=100.0, training=recipe)
    model = reduce(base.model, base.shape, reducer)
    train(model, reducer, recipe, base.preprocess, photos, np.arange(64), seed=0)
    share = count_reduced_macs(model) / count_macs(base.shape)
    assert 0.45 < share < 0.75
    logits = model(base.preprocess(photos.read(np.arange(4))))
    assert logits.isfinite().all()


def test_a_training_is_done_once_and_read_back(base, photos, tmp_path):
    recipe = replace(RECIPE, epochs=1)
    reducer = lookup("tokens", "spvit")(keep=0.6, training=recipe)
    first = trained_parameters(reducer, base, public(photos), tmp_path)
    files = list(tmp_path.rglob("*.safetensors"))
    assert len(files) == 1
    stamp = files[0].stat().st_mtime_ns
    again = trained_parameters(reducer, base, public(photos), tmp_path)
    assert files[0].stat().st_mtime_ns == stamp
    assert all(torch.equal(first[name], again[name]) for name in first)
    fresh = trained_parameters(reducer, base, public(photos), tmp_path / "elsewhere")
    assert all(torch.equal(first[name], fresh[name]) for name in first), "a training must repeat to the bit"
    for other in (replace(reducer, keep=0.5), replace(reducer, package="sum")):
        trained_parameters(other, base, public(photos), tmp_path)
    trained_parameters(reducer, base, public(photos, 48), tmp_path)
    trained_parameters(reducer, base, public(photos), tmp_path, seed=1)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 6  # 5 here, 1 elsewhere


def test_a_damaged_file_is_trained_again(base, photos, tmp_path):
    reducer = lookup("tokens", "spvit")(keep=0.6, training=replace(RECIPE, epochs=1))
    first = trained_parameters(reducer, base, public(photos), tmp_path)
    path = next(tmp_path.rglob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:100])
    again = trained_parameters(reducer, base, public(photos), tmp_path)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_training_free_reducers_have_nothing_to_train(base, photos, tmp_path):
    assert trained_parameters(lookup("tokens", "evit")(), base, public(photos), tmp_path) is None
    assert trained_parameters(lookup("tokens", "spvit")(keep=1.0), base, public(photos), tmp_path) is None
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


def test_the_loss_of_an_unreduced_model_is_zero_but_for_its_penalty(base, photos):
    reducer = lookup("tokens", "ltmp")(keep=0.5, budget_weight=4.0)
    model = reduce(base.model, base.shape, reducer)
    model.masked = True
    model.stages.train()
    loss = distillation(model, base.preprocess(photos.read(np.arange(4))), 0.5, reducer)
    assert float(loss) == pytest.approx(4.0 * 0.5**2, abs=1e-4)


@pytest.mark.parametrize(("name", "expected"), [("spvit", 0.0), ("dynamicvit", 0.25**2)])
def test_the_ratio_loss_holds_every_image_to_its_share_or_the_batch_on_average(name, expected):
    counts = (torch.tensor([13.0, 5.0]),)  # 16 patches and the class token: shares of 3/4 and 1/4 in two images
    trace = Trace(counts, counts, counts, counts, (torch.ones(2),))
    each_image = lookup("tokens", name).each_image
    assert float(share_penalty(trace, {0: 0}, {0: 0.5}, 16, each_image)) == pytest.approx(expected)


def test_ragged_counts_meet_the_ratio_in_the_mean_of_the_training_images(base, photos):
    recipe = replace(RECIPE, epochs=1)
    reducer = lookup("tokens", "spvit")(keep=0.6, training=recipe)
    model = reduce(base.model, base.shape, reducer)
    train(model, reducer, recipe, base.preprocess, photos, np.arange(64), seed=0)
    trace = model.set_ragged(True).run(base.preprocess(photos.read(np.arange(64)))).trace
    for block, protected in zip(sorted(model.at), (2, 3, 4), strict=True):
        kept = float((trace.mlp[block] - protected).mean())
        assert kept == pytest.approx(model.at[block].count, abs=0.2)
        assert trace.mlp[block].unique().numel() > 1
