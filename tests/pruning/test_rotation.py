"""Coordinates under methods that learn: what does not see the axes is the same, what trains leaves them rotated."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedprune.core.errors import ConfigError
from fedprune.core.registry import from_dict
from fedprune.devices.budget import Budget
from fedprune.devices.budgets import budget_without
from fedprune.pruning.layer_classifiers import layer_features, use_classifier
from fedprune.pruning.learned_masks import LearnedMasks
from fedprune.pruning.learning import cut_trained
from fedprune.pruning.tap import Tap
from fedprune.pruning.uvc import UVC
from fedprune.pruning.wdpruning import WDPruning
from fedprune.testing.tasks import CLASSES, random_base, task_of
from fedprune.vit.counts import count_params
from fedprune.vit.refit import Sums, solve
from fedprune.vit.shape import Keep
from fedprune.vit.stream import is_rotated
from fedprune.vit.surgery import cut

PIXELS = torch.randn(3, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", [LearnedMasks(epochs=2), Tap()], ids=lambda method: method.name)
def test_what_masks_heads_and_neurons_alone_does_not_see_the_axes_of_the_stream(method):
    """The embedding stays whole, and a rotated base computes what the base does: so both keep the same."""
    base = random_base("plain")
    edges = [
        replace(method, stream=stream).derive(
            task_of(base, images=12, budget=budget_without(base.shape, 0.2, "params"))
        )
        for stream in ("as_is", "rotated")
    ]
    assert [is_rotated(edge.source) for edge in edges] == [False, True]
    assert edges[0].shape == edges[1].shape != base.shape
    torch.testing.assert_close(edges[1].model(PIXELS), edges[0].model(PIXELS), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "method",
    [
        WDPruning(epochs=1, learning_rate=0, exits=False, stream="rotated", attention="low_rank"),
        UVC(epochs=1, learning_rate=0, stream="rotated", attention="low_rank"),
    ],
    ids=lambda method: method.name,
)
def test_where_nothing_is_cut_and_nothing_learned_the_base_comes_back(method):
    base = random_base("layer_scale", dtype=torch.float32)
    edge = method.derive(task_of(base, images=8, budget=Budget(params=count_params(base.shape))))
    assert edge.keep.blocks[0].heads.tolist() == [0, 1]
    torch.testing.assert_close(edge.model(PIXELS.float()), base.model(PIXELS.float()), rtol=0, atol=1e-4)


def test_training_a_rotated_base_leaves_the_dimension_of_the_mean_at_zero():
    """No gradient comes to it, so that what is cut out of the trained weights computes what they do."""
    task = WDPruning(stream="rotated").in_coordinates(task_of(random_base("plain")))
    model = copy.deepcopy(task.base.model).requires_grad_(True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.05)
    for _ in range(5):
        optimiser.zero_grad()
        model(PIXELS).square().sum().backward()
        optimiser.step()
    edge = cut_trained(task, model, Keep.everything(task.base.shape))
    assert edge.source is task.base
    assert float((model(PIXELS) - task.base.model(PIXELS)).abs().max()) > 0.1
    torch.testing.assert_close(edge.model(PIXELS), model(PIXELS), rtol=0, atol=1e-9)


@pytest.mark.parametrize("stream", ["as_is", "rotated"])
@pytest.mark.parametrize("plain_norm", [True, False])
def test_a_layer_s_classifier_reads_a_shorter_model_in_any_coordinates(stream, plain_norm):
    """Logits after two of three blocks, from the classifier fitted by hand on the base's features there."""
    task = task_of(random_base("plain"), images=16)
    task = Tap(stream=stream).in_coordinates(task)
    everything = Keep.everything(task.base.shape)
    edge = cut(task.base, replace(everything, blocks=everything.blocks[:2]), plain_norm=plain_norm)
    use_classifier(task, edge, 1024, 2)
    training = task.pool[::2]
    features = layer_features(task, training)
    head = task.base.model.head
    sums = Sums(16, CLASSES).add(features[1], features[-1] @ head.weight.T + head.bias, torch.ones(len(training)))
    weight, bias = solve(head.weight.double(), head.bias.double(), sums, 1e-2)
    pixels = task.base.preprocess(task.images.read(np.arange(4))).double()
    wanted = layer_features(task, np.arange(4))[1] @ weight.T + bias
    torch.testing.assert_close(edge.model(pixels), wanted, rtol=0, atol=1e-9)


def test_widths_by_singular_values_have_no_other_coordinates():
    with pytest.raises(ConfigError, match="widths by their singular values, which only low_rank has. Leave it"):
        from_dict("method", {"name": "nuwa_v2", "attention": "as_is"})
    for name in ("uvc", "tap", "nuwa_v1"):
        with pytest.raises(ConfigError, match="attention is 'svd'; choose one of low_rank, as_is"):
            from_dict("method", {"name": name, "attention": "svd"})
