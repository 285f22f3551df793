import copy

import numpy as np
import pytest
import torch

from fedprune.evidence.losses import label_loss
from fedprune.recovery.personal import OwnImages
from fedprune.recovery.personal_finetune import PersonalFinetune
from fedprune.recovery.personal_none import NoPersonal
from fedprune.testing.tasks import FAMILIES, half_of, random_base, task_of
from fedprune.vit.base import predict
from fedprune.vit.surgery import cut

ROWS = (4, 1, 5, 0)  # of the classifier's base classes, in any order
OWN = (1, 4)


def own_of(task, classes=OWN):
    indices = np.flatnonzero(np.isin(task.images.labels, classes))
    return OwnImages(task.images, indices, task.base.preprocess, classes, seed=3)


def edge_of(kind):
    base = random_base(kind, dtype=torch.float32)
    model = copy.deepcopy(cut(base, half_of(base.shape, "neurons")).model)
    for head in [model.head] + ([model.head_dist] if kind == "distilled" else []):
        head.weight = torch.nn.Parameter(head.weight[list(ROWS)], requires_grad=False)
        head.bias = torch.nn.Parameter(head.bias[list(ROWS)], requires_grad=False)
    return model, task_of(base, images=24)


@pytest.mark.parametrize("kind", FAMILIES)
def test_training_lowers_the_loss_on_own_images_and_repeats_to_the_bit(kind):
    model, task = edge_of(kind)
    own = own_of(task)
    trained = [copy.deepcopy(model) for _ in range(2)]
    for each in trained:
        PersonalFinetune(epochs=10, learning_rate=1e-3).train(each, each, ROWS, own)
    first, second = (each.state_dict() for each in trained)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert loss_of(trained[0], own) < loss_of(model, own)
    assert not trained[0].training
    assert not any(parameter.requires_grad for parameter in trained[0].parameters())


def test_rows_of_other_classes_are_not_asked():
    model, task = edge_of("plain")
    before = model.head.bias.clone()
    PersonalFinetune(epochs=2).train(model, model, ROWS, own_of(task))
    assert torch.equal(model.head.bias[[2, 3]], before[[2, 3]])  # classes 5 and 0
    assert not torch.equal(model.head.bias[[0, 1]], before[[0, 1]])


def test_without_a_row_of_its_classes_or_without_training_nothing_changes():
    model, task = edge_of("plain")
    before = copy.deepcopy(model.state_dict())
    PersonalFinetune().train(model, model, ROWS, own_of(task, classes=(2, 3)))
    NoPersonal().train(model, model, ROWS, own_of(task))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert NoPersonal().passes() == 0
    assert PersonalFinetune(epochs=3).passes() == 3


def loss_of(model, own) -> float:
    logits = predict(model, own.preprocess, own.images, own.indices)
    asked = [ROWS.index(name) for name in own.classes]
    return float(
        label_loss(torch.from_numpy(logits[:, asked]), torch.from_numpy(own.images.labels[own.indices]), own.classes)
    )
