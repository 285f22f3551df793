"""What options say about labels of public images is so, whichever they say; our own pipeline can do without."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from fedprune.core.errors import MissingExtra
from fedprune.core.registry import registered
from fedprune.devices.budgets import budget_without
from fedprune.experiment.compose import compose
from fedprune.pruning.fedprune import Fedprune
from fedprune.pruning.importance import Importance
from fedprune.recovery.finetune import Finetune
from fedprune.recovery.heal import Heal
from fedprune.testing.contract import difference
from fedprune.testing.recoveries import half
from fedprune.testing.selectors import selection_task
from fedprune.testing.tasks import random_base, task_of

QUICK = {"epochs": 1, "steps": 2}
ENOUGH = {"nuwa_v2": {"epochs": 20, "mask_rate": 1.0}}  # for masks to move


def quickly(option):
    return replace(option, **{field.name: QUICK[field.name] for field in fields(option) if field.name in QUICK})


def changed_by_labels(method, recovery=None, **settings):
    """Return the name of what differs where the pool has other labels, if anything."""
    models = []
    for relabelled in (False, True):
        base = random_base(dtype=torch.float32)
        task = task_of(base, budget=budget_without(base.shape, 0.5, "params"), relabelled=relabelled, **settings)
        edge = method.derive(task) if method else half(base)
        models.append((recovery.recover(edge, task) if recovery else edge).model.state_dict())
    shapes = [[value.shape for value in model.values()] for model in models]
    return difference(*models) if shapes[0] == shapes[1] else "shape"


@pytest.mark.parametrize("name", sorted(registered("method")))
def test_methods_say_whether_they_read_labels(name):
    method = replace(quickly(registered("method")[name]()), **ENOUGH.get(name, {}))
    try:
        assert bool(changed_by_labels(method, images=24)) == method.reads_labels
    except MissingExtra as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize(
    "recovery", [quickly(cls()) for cls in registered("recovery").values()] + [Finetune(1, distill=1.0)]
)
def test_recoveries_say_whether_they_read_labels(recovery):
    assert bool(changed_by_labels(None, recovery)) == recovery.reads_labels


@pytest.mark.parametrize("name", sorted(registered("selector")))
def test_selectors_say_whether_they_read_labels(name):
    selector, task = registered("selector")[name](), selection_task()
    other = replace(task, private=replace(task.private, pool_labels=task.private.pool_labels[::-1].copy()))
    same = np.array_equal(selector.select(task).indices, selector.select(other).indices)
    assert same != selector.reads_labels


@pytest.mark.parametrize("loss", ["kl", "entropy", "pseudo"])
@pytest.mark.parametrize("directions", ["pca", "geo"])
def test_our_own_pipeline_can_do_without_labels(loss, directions):
    """Scores, directions of gradients, surgeon, scores measured again, refit and healing."""
    method = Fedprune(Importance(loss=loss), stream="rotated", directions=directions, neurons="obs", reestimate=0.3)
    recovery = Heal(steps=2)
    assert not method.reads_labels
    assert not recovery.reads_labels
    assert not changed_by_labels(method, recovery, images=24)


def test_directions_of_gradients_and_own_classes_read_what_the_loss_reads():
    for method, reads in (
        (Fedprune(Importance(loss="labels", own_classes=True)), True),
        (Fedprune(Importance(loss="kl", own_classes=True)), False),
        (registered("method")["activation"](stream="rotated", directions="geo"), True),
        (registered("method")["activation"](stream="rotated", directions="pca"), False),
    ):
        assert method.reads_labels == reads
        assert bool(changed_by_labels(method, images=24, classes=(0, 1, 2))) == reads


@pytest.mark.parametrize(
    ("settings", "reads"),
    [
        ([], True),
        (["method.importance.loss=kl"], False),
        (["method.importance.loss=kl", "selector=label_histogram"], True),
        (["method.importance.loss=kl", "recovery=finetune"], True),
        (["method.importance.loss=kl", "tokens=tome"], False),
        (["preset=corp"], False),
        (["preset=spvit"], True),
        (["preset=nuwa_v2"], True),
    ],
)
def test_a_run_says_whether_labels_had_a_part(settings, reads):
    assert compose(settings).reads_labels == reads
