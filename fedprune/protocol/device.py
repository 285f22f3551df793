"""What a device does: report its mixture, evaluate and maybe train its edge model. Nothing else ever leaves it."""

import copy
import time

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fedprune.core.random import stream_seed
from fedprune.mixture.mixture import FeatureSpace
from fedprune.mixture.report import Report, pack_report
from fedprune.privacy.ledger import Ledger
from fedprune.privacy.mechanism import Records
from fedprune.protocol.answers import Evaluation, PersonalEvaluation, Upload
from fedprune.protocol.setup import World
from fedprune.protocol.storage import Loaded
from fedprune.recovery.personal import OwnImages
from fedprune.vit.base import predict


def make_report(world: World, device: int, space: FeatureSpace) -> Upload:
    """Fit and guard the mixture of a device's private images, and pack it with the device's budget.

    Raises:
        BudgetSpent: the release would exceed the device's privacy limit; nothing leaves it then.
    """
    setup, shard = world.setup, world.shard(device)
    records = Records(
        points=space.project(world.train_features(shard.train)),
        space=space,
        fit=setup.mixture,
        seed=stream_seed(setup.seed, "mixture", device),
        labels=world.dataset.train.labels[shard.train],
        class_count=len(world.dataset.classes),
    )
    release = setup.mechanism.release(records)
    report = Report(
        device=device,
        mixture=release.mixture,
        budget=world.budget(device),
        images=release.images,
        classes=shard.classes if setup.share_classes else None,
    )
    Ledger(epsilon=setup.privacy_limit).book(device, "report", setup.book(release.entries))
    return Upload(pack_report(report), release.entries)


def evaluate(world: World, device: int, model: nn.Module, rows: tuple[int, ...]) -> Evaluation:
    """Evaluate base and edge model on a device's private test images.

    Args:
        world: The device's world.
        device: Which device.
        model: The edge model.
        rows: Base class of each of the edge model's outputs.
    """
    shard, images = world.shard(device), world.dataset.test
    labels = images.labels[shard.test]
    base = world.base_logits(images, shard.test, "test")
    every_class = tuple(range(base.shape[1]))
    return Evaluation(
        images=len(labels),
        base=count_correct(base, labels, every_class, every_class),
        subclassifier=count_correct(base, labels, every_class, shard.classes),
        edge=_correct(world, device, model, rows),
    )


def personalise(world: World, device: int, edge: Loaded, rows: tuple[int, ...]) -> PersonalEvaluation:
    """Train the edge model on a device's private training images, and evaluate it before and after.

    Args:
        world: The device's world; its setup says how to train.
        device: Which device.
        edge: The edge model; the trained one is a copy.
        rows: Base class of each of the edge model's outputs.
    """
    before = evaluate(world, device, edge.model, rows)
    began = time.perf_counter()
    trained = _trained(world, device, edge, rows)
    seconds = time.perf_counter() - began
    reference = None
    if world.setup.personal.trains_base:
        base, every_class = world.base.model, tuple(range(world.base.shape.classes))
        reference = _correct(world, device, _trained(world, device, Loaded(base, base), every_class), every_class)
    return PersonalEvaluation(before, _correct(world, device, trained, rows), reference, seconds)


def _trained(world: World, device: int, edge: Loaded, rows: tuple[int, ...]) -> nn.Module:
    """Return a copy of `edge` trained on the device's own images; a token reducer inside it stays as it is."""
    edge, shard = copy.deepcopy(edge), world.shard(device)
    own = OwnImages(
        images=world.dataset.train,
        indices=shard.train,
        preprocess=world.base.preprocess,
        classes=shard.classes,
        seed=stream_seed(world.setup.seed, "personal", device),
        precision=world.setup.precision,
    )
    world.setup.personal.train(edge.model, edge.backbone, rows, own)
    return edge.model


def _correct(world: World, device: int, model: nn.Module, rows: tuple[int, ...]) -> int:
    """Count the private test images that `model` gets right when only the device's classes are asked."""
    shard, images = world.shard(device), world.dataset.test
    logits = predict(
        model,
        world.base.preprocess,
        images,
        shard.test,
        precision=world.setup.precision,
        device=world.setup.compute,
    )
    return count_correct(logits, images.labels[shard.test], rows, shard.classes)


def count_correct(
    logits: NDArray[np.float32], labels: NDArray[np.int64], rows: tuple[int, ...], asked: tuple[int, ...]
) -> int:
    """Count right answers among the classes `asked`; a class without a row is never answered.

    Args:
        logits: (images, rows)
        labels: (images,) base classes
        rows: Base class of each column of `logits`.
        asked: Base classes that an answer may be.
    """
    allowed = np.isin(rows, asked)
    if not allowed.any():
        return 0
    answers = np.asarray(rows)[allowed][logits[:, allowed].argmax(axis=1)]
    return int((answers == labels).sum())
