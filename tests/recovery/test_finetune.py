import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedprune.data.images import ArrayImages
from fedprune.evidence.losses import label_loss
from fedprune.recovery.finetune import Finetune
from fedprune.testing.tasks import FAMILIES, half_of, random_base, task_of
from fedprune.vit.base import predict
from fedprune.vit.surgery import cut


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("settings", [{}, {"distill": 0.5}, {"least_squares": True}])
def test_training_lowers_the_loss_and_leaves_base_and_cut_alone(kind: str, settings: dict[str, float]) -> None:
    base = random_base(kind, dtype=torch.float32)
    task = task_of(base, images=24)
    edge = cut(base, half_of(base.shape, "neurons"))
    before = copy.deepcopy(edge.model.state_dict())
    base_before = copy.deepcopy(base.model.state_dict())
    recovery = Finetune(epochs=10, learning_rate=1e-3, **settings)
    first, second = (recovery.recover(edge, task) for _ in range(2))
    for name, value in edge.model.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(first.model.state_dict()[name], second.model.state_dict()[name])
    for name, value in base.model.state_dict().items():
        assert torch.equal(value, base_before[name])
    assert _loss(first, task) < _loss(edge, task)
    assert not first.model.training
    assert not any(parameter.requires_grad for parameter in first.model.parameters())
    assert first.notes["recovery_images"] == 240


def _loss(edge, task) -> float:
    logits = predict(edge.model, edge.preprocess, task.images, task.proxy)
    labels = torch.from_numpy(task.images.labels[task.proxy])
    return float(label_loss(torch.from_numpy(logits), labels, edge.classes))


def test_distillation_alone_asks_no_labels() -> None:
    base = random_base("plain", dtype=torch.float32)
    task = task_of(base, images=12)
    edge = cut(base, half_of(base.shape, "neurons"))
    models = []
    for shift in (0, 1):
        task.images.labels[:] = (np.arange(12) + shift) % 6
        models.append(Finetune(epochs=1, distill=1.0).recover(edge, task).model.state_dict())
    for name, value in models[0].items():
        assert torch.equal(value, models[1][name])


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"distill": 1.5}])
def test_wrong_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Finetune(**wrong)  # type: ignore[arg-type]


def test_the_epoch_that_is_most_often_right_on_validation_is_kept() -> None:
    base = random_base("plain", dtype=torch.float32)
    task = task_of(base, images=24)
    edge = cut(base, half_of(base.shape, "neurons"))
    everything = np.arange(24)
    epochs = [Finetune(epochs=count, learning_rate=3e-3).recover(edge, task).model for count in range(1, 6)]
    answers = np.stack([predict(model, edge.preprocess, task.images, everything).argmax(axis=1) for model in epochs])
    wanted = answers[2]  # whoever answers as the third epoch does is right
    assert len(np.unique(answers, axis=0)) > 1
    first = int(np.argmax((answers == wanted).sum(axis=1)))
    validation = ArrayImages(task.images.read(everything), np.array(edge.classes)[wanted])
    recovery = Finetune(epochs=5, learning_rate=3e-3, best_epoch=True)
    assert recovery.validates
    best = recovery.recover(edge, replace(task, validation=validation))
    assert best.notes["recovery_epoch"] == first + 1
    for name, value in epochs[first].state_dict().items():
        assert torch.equal(value, best.model.state_dict()[name])
