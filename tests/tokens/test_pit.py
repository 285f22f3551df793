"""Token selectors inside a PiT: masked equals gathered, MACs are those that torch counts, keep 1 is the PiT."""

from unittest.mock import patch

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fedprune.core.errors import ModelError
from fedprune.core.registry import lookup
from fedprune.testing.reducers import explicit_attention, stir
from fedprune.tokens import attend
from fedprune.tokens.pit import count_pit_macs, reduce_pit
from tests.tokens.vits import random_base


def random_pit(distilled=False):
    """A PiT in float64 of grids 7 x 7, 4 x 4 and 2 x 2, all weights random."""
    from timm.models.pit import PoolingVisionTransformer

    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "stride": 4, "num_classes": 5, "mlp_ratio": 2}
    pit = PoolingVisionTransformer(base_dims=(6, 6, 6), depth=(2, 3, 2), heads=(1, 2, 4), distilled=distilled, **sizes)
    for parameter in pit.requires_grad_(False).parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    return pit.double().eval()


def images(count=3):
    return torch.randn(count, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def reduced(pit, name, keep=0.6, **options):
    reducer = lookup("tokens", name)(keep=keep, places=(0.0, 0.5), **options)
    model = reduce_pit(pit, [reducer, reducer, lookup("tokens", "none")()])
    for part in model.stages:
        stir(part)
    return model


@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize(("name", "options"), [("spvit", {}), ("spvit", {"package": "none"}), ("dynamicvit", {})])
def test_masked_and_gathered_are_one_computation(name, options, ragged, distilled):
    pit = random_pit(distilled)
    model = reduced(pit, name, **options).set_ragged(ragged)
    with torch.no_grad():
        gathered, masked = model.set_masked(False)(images()), model.set_masked(True)(images())
        assert (gathered - masked).abs().max() < 1e-12
        assert (gathered - pit(images())).abs().max() > 1e-6


@pytest.mark.parametrize("name", ["spvit", "dynamicvit"])
@pytest.mark.parametrize("distilled", [False, True])
def test_macs_are_those_that_torch_counts(name, distilled):
    model, counter = reduced(random_pit(distilled), name), FlopCounterMode(display=False)
    with torch.no_grad(), patch.object(attend, "fused_attention", explicit_attention), counter:
        model(images(1))
    assert count_pit_macs(model) == counter.get_total_flops() // 2
    assert count_pit_macs(model) < count_pit_macs(reduced(random_pit(distilled), name, keep=1.0))


def test_keep_ratio_one_is_the_pit():
    pit = random_pit()
    with torch.no_grad():
        assert (reduced(pit, "spvit", keep=1.0)(images()) - pit(images())).abs().max() < 1e-12


def test_gradients_reach_selectors_in_front_of_a_pooling():
    model = reduced(random_pit(), "spvit").set_masked(True)
    model.stages[0].stages.train().requires_grad_(True)
    model(images()).square().sum().backward()
    assert any(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in model.parameters())


def test_what_has_no_place_on_a_grid_is_refused():
    none = lookup("tokens", "none")()
    with pytest.raises(ModelError, match="is no PiT"):
        reduce_pit(random_base().model, [none] * 3)
    with pytest.raises(ModelError, match="where the tokens it leaves stood"):
        reduce_pit(random_pit(), [lookup("tokens", "tome")(), none, none])
    with pytest.raises(ModelError, match="one reducer for each"):
        reduce_pit(random_pit(), [none])
