"""The contracts of recovery and of personal training: weights change, the shape and what was given do not."""

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fedprune.devices.groups import WIDTHS
from fedprune.recovery.personal import OwnImages, Personal
from fedprune.recovery.recovery import Recovery
from fedprune.testing.contract import (
    GLOBAL_RANDOMNESS,
    Check,
    asked,
    difference,
    expect,
    it_is_an_option_of_its_kind,
    under_two_generators,
)
from fedprune.testing.tasks import CLASSES, FAMILIES, WatchedImages, half_of, random_base, task_of
from fedprune.vit.base import Base, freeze
from fedprune.vit.surgery import EdgeModel, cut

OWN = (1, 4)


def half(base: Base, what: str = "neurons") -> EdgeModel:
    """Return an edge model that has lost half of one dimension, without gradients."""
    edge = cut(base, half_of(base.shape, what))
    freeze(edge.model)
    return edge


def recovery_contract(recovery: Recovery) -> list[Check]:
    """Return the checks of a recovery step."""
    return [
        *asked(it_is_an_option_of_its_kind, kind=["recovery"], base=[Recovery]),
        *asked(weights_change_and_nothing_else, family=FAMILIES),
        *asked(whatever_was_cut_is_recovered, what=[*WIDTHS, "blocks"]),
        *asked(the_same_task_gives_the_same_bits),
        *asked(one_image_is_enough),
        *asked(only_the_pool_is_read),
        *asked(labels_that_it_does_not_read_change_nothing),
    ]


def personal_contract(personal: Personal) -> list[Check]:
    """Return the checks of training on a device's own images."""
    return [
        *asked(it_is_an_option_of_its_kind, kind=["personal"], base=[Personal]),
        *asked(it_trains_the_same_way_every_time, family=FAMILIES),
        *asked(only_the_devices_own_images_are_read),
        *asked(a_model_without_its_classes_stays_as_it_is),
    ]


def expect_sound(edge: EdgeModel, before: EdgeModel) -> None:
    """Expect a finite model of the same shape, ready to be sent.

    Raises:
        AssertionError: it is not.
    """
    expect(edge.shape == before.shape, f"the shape was {before.shape} and is {edge.shape}; a recovery keeps it.")
    expect(edge.classes == before.classes, f"the classes were {before.classes} and are {edge.classes}.")
    expect_ready(edge.model, before.model.state_dict())


def expect_ready(model: torch.nn.Module, before: Mapping[str, Tensor]) -> None:
    """Expect finite tensors of the same names and sizes, evaluation mode, no gradients.

    Raises:
        AssertionError: it is not so.
    """
    values = model.state_dict()
    sizes = {name: tuple(value.shape) for name, value in values.items()}
    expect(sizes == {name: tuple(value.shape) for name, value in before.items()}, "names or sizes of tensors changed.")
    broken = [name for name, value in values.items() if not torch.isfinite(value).all()]
    expect(not broken, f"the model's {broken[:1]} is not finite.")
    expect(not model.training, "the model is left in training mode; call eval().")
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    expect(not trained, f"the model's {trained[:1]} is left with gradients switched on.")


def weights_change_and_nothing_else(recovery: Recovery, family: str) -> None:
    """Base, cut edge model and notes stay as they are; the recovered model is another."""
    base = random_base(family, dtype=torch.float32)
    edge = half(base)
    before, base_before = (copy.deepcopy(model.state_dict()) for model in (edge.model, base.model))
    recovered = recovery.recover(edge, task_of(base, images=24))
    for what, was, now in (("edge model", before, edge.model), ("shared base", base_before, base.model)):
        name = difference(was, now.state_dict())
        expect(not name, f"the {what}'s {name} was changed in place. Work on a copy.")
    expect_sound(recovered, edge)
    gone = sorted(set(edge.notes) - set(recovered.notes))
    expect(not gone, f"the notes {gone} of the method are gone.")
    if difference(before, recovered.model.state_dict()):
        for note in ("recovery_images", "recovery_seconds"):
            expect(note in recovered.notes, f"weights changed, and the notes do not say {note!r}: what did it cost?")


def whatever_was_cut_is_recovered(recovery: Recovery, what: str) -> None:
    """Any of the seven dimensions may have been cut."""
    base = random_base(dtype=torch.float32)
    edge = half(base, what)
    expect_sound(recovery.recover(edge, task_of(base)), edge)


def the_same_task_gives_the_same_bits(recovery: Recovery) -> None:
    """Randomness comes from the task's seed and nothing else."""
    base = random_base(dtype=torch.float32)
    edge = half(base)
    task = task_of(base)
    first, second = under_two_generators(lambda: recovery.recover(edge, task).model.state_dict())
    name = difference(first, second)
    expect(not name, f"two recoveries of one edge model differ in {name}. {GLOBAL_RANDOMNESS}")


def one_image_is_enough(recovery: Recovery) -> None:
    """A proxy set may have one image."""
    base = random_base(dtype=torch.float32)
    edge = half(base, "embed")
    expect_sound(recovery.recover(edge, task_of(base, size=1)), edge)


def only_the_pool_is_read(recovery: Recovery) -> None:
    """The validation cut lies beside the pool, and a recovery that looks at it has trained on it."""
    base = random_base(dtype=torch.float32)
    task = task_of(base, images=10, beside=4)
    recovery.recover(half(base), task)
    assert isinstance(task.images, WatchedImages)
    read = sorted(task.images.seen - set(task.pool.tolist()))
    expect(not read, f"it read image {read[:1]} of the server's, which is not in the pool.")


def labels_that_it_does_not_read_change_nothing(recovery: Recovery) -> None:
    """Tables tell which rows read labels of public images: `reads_labels` says so of a recovery."""
    if recovery.reads_labels:
        return
    base = random_base(dtype=torch.float32)
    edge = half(base)
    first, second = (
        recovery.recover(edge, task_of(base, relabelled=other)).model.state_dict() for other in (False, True)
    )
    name = difference(first, second)
    expect(not name, f"`reads_labels` is false, and with other labels the recovered model differs in {name}.")


def own_model(family: str = "plain") -> tuple[torch.nn.Module, tuple[int, ...], OwnImages]:
    """Return an edge model that has rows for some classes, which those are, and the images of a device of two."""
    base = random_base(family, dtype=torch.float32)
    images = task_of(base, images=24).images
    indices = np.flatnonzero(np.isin(images.labels, OWN))
    rows = tuple(range(CLASSES))
    own = OwnImages(images, indices, base.preprocess, OWN, seed=3)
    return half(base).model, rows, own


def it_trains_the_same_way_every_time(personal: Personal, family: str) -> None:
    """In place, from the device's seed, and the model is ready to evaluate afterwards."""
    passes = personal.passes()
    expect(isinstance(passes, int) and passes >= 0, f"`passes` gives {passes!r}; it is a number of passes.")
    model, rows, own = own_model(family)

    def train() -> Mapping[str, Tensor]:
        trained = copy.deepcopy(model)
        personal.train(trained, trained, rows, own)
        expect_ready(trained, model.state_dict())
        return trained.state_dict()

    first, second = under_two_generators(train)
    name = difference(first, second)
    expect(not name, f"the same training twice differs in {name}. {GLOBAL_RANDOMNESS}")
    changed = bool(difference(model.state_dict(), first))
    expect(changed == bool(passes), f"`passes` says {passes}, and the weights were {'' if changed else 'not '}changed.")


def only_the_devices_own_images_are_read(personal: Personal) -> None:
    """`own.indices` are the device's to train on; its test images are not."""
    model, rows, own = own_model()
    personal.train(model, model, rows, own)
    assert isinstance(own.images, WatchedImages)
    read = sorted(own.images.seen - set(own.indices.tolist()))
    expect(not read, f"it read image {read[:1]}, which is not one of `own.indices`.")


def a_model_without_its_classes_stays_as_it_is(personal: Personal) -> None:
    """Without a row for a class of the device there is nothing to learn."""
    model, _, own = own_model()
    before = copy.deepcopy(model.state_dict())
    personal.train(model, model, (0, 2, 3, 5, 0, 2), own)
    name = difference(before, model.state_dict())
    expect(not name, f"the model has no row for a class of the device, and its {name} was trained.")
