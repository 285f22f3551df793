"""What runs on a GPU meets no tensor of this processor there, and gives what it gives here."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from fedprune.evidence.evidence import Evidence
from fedprune.evidence.statistics import STATISTICS
from fedprune.mixture.features_base import extract
from fedprune.recovery.finetune import Finetune
from fedprune.recovery.heal import Heal
from fedprune.recovery.least_squares import LeastSquares
from fedprune.testing.tasks import half_of, random_base, task_of
from fedprune.vit.base import predict
from fedprune.vit.surgery import cut
from tests.elsewhere import elsewhere
from tests.evidence.tiny import make_base, make_images

ALL = np.arange(20)


def test_a_tensor_elsewhere_meets_no_other(monkeypatch):
    with elsewhere(monkeypatch) as device:
        there = torch.ones(3, device=device)
        with pytest.raises(RuntimeError, match="mixes a tensor elsewhere"):
            there + torch.ones(3)
        with pytest.raises((TypeError, RuntimeError)):
            there.numpy()
        layer = torch.nn.Linear(3, 2).to(device)
        layer(there).sum().backward()
        assert layer.weight.grad.device.type == device
        assert torch.equal(layer.weight.grad.cpu(), torch.ones(2, 3))


def evidence(folder, device):
    return Evidence(make_base(), make_images(), folder, images_id="images", batch_size=8, device=device)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_evidence(tmp_path, monkeypatch, statistic):
    here = evidence(tmp_path, "cpu").mean_row(statistic, ALL)
    with elsewhere(monkeypatch) as device:
        there = evidence(tmp_path, device).mean_row(statistic, ALL)
    # attention is computed in other steps there, and stored rows have half precision
    np.testing.assert_allclose(there, here, rtol=2e-3, atol=2e-4 * np.abs(here).max())


@pytest.mark.parametrize("kind", ["geo", "pca"])
def test_directions(tmp_path, monkeypatch, kind):
    here = evidence(tmp_path / "here", "cpu").directions(kind, ALL)
    with elsewhere(monkeypatch) as device:
        there = evidence(tmp_path / "there", device).directions(kind, ALL)
    np.testing.assert_allclose(np.abs(here.T @ there).diagonal(), 1, atol=1e-3)


def test_logits_and_features(monkeypatch):
    base, images = make_base(), make_images()
    kinds = ("cls", "mean", "block-1")
    with elsewhere(monkeypatch) as device:
        logits = predict(base.model, base.preprocess, images, ALL, device=device)
        features = [extract(base, images, ALL, kind, device=device) for kind in kinds]
    np.testing.assert_allclose(logits, predict(base.model, base.preprocess, images, ALL), atol=1e-5)
    for kind, there in zip(kinds, features, strict=True):
        np.testing.assert_allclose(there, extract(base, images, ALL, kind), atol=1e-5)


STEP = 2e-4  # how far apart two of Adam's steps at 1e-4 may be where a gradient is all but zero


@pytest.mark.parametrize(
    ("recovery", "apart"),
    [
        (LeastSquares(), 1e-4),
        (LeastSquares(head="leave_one_out"), 1e-4),
        (Heal(steps=2, learning_rate=2.5e-4), 1e-4),
        (Finetune(), 5 * STEP),
    ],
    ids=["least_squares", "leave_one_out", "heal", "finetune"],
)
def test_recovery(monkeypatch, recovery, apart):
    task = task_of(random_base(dtype=torch.float32), images=16)
    keep = half_of(task.base.shape, "neurons")
    here = recovery.recover(cut(task.base, keep), task).model.state_dict()
    with elsewhere(monkeypatch) as device:
        base = dataclasses.replace(task.base, model=copy.deepcopy(task.base.model).to(device))
        there = recovery.recover(cut(base, keep), dataclasses.replace(task, base=base)).model.state_dict()
        assert {value.device.type for value in there.values()} == {device}
        found = {name: value.cpu() for name, value in there.items()}
    for name, value in here.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=apart)
