"""What a device does: report its mixture, evaluate its edge model. Nothing else ever leaves it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedprune.core.random import stream_seed
from fedprune.mixture.mixture import FeatureSpace
from fedprune.mixture.report import Report, pack_report
from fedprune.privacy.ledger import Ledger, LedgerEntry, unprotected_entries
from fedprune.protocol.setup import World
from fedprune.vit.base import predict


@dataclass(frozen=True)
class Upload:
    """A packed report and the ledger entries for what it releases."""

    arrays: Mapping[str, bytes]
    ledger: tuple[LedgerEntry, ...]

    @property
    def size(self) -> int:
        """Bytes of the report."""
        return sum(len(data) for data in self.arrays.values())


@dataclass(frozen=True)
class Evaluation:
    """Counts over a device's private test images, so that any average can be computed again.

    Attributes:
        images: Test images.
        base: Correct answers of the base as it is, over all classes.
        subclassifier: Correct answers of the base when only the device's classes are asked.
        edge: Correct answers of the edge model when only the device's classes are asked.
    """

    images: int
    base: int
    subclassifier: int
    edge: int


def make_report(world: World, device: int, space: FeatureSpace) -> Upload:
    """Fit and guard the mixture of a device's private images, and pack it with the device's budget.

    Raises:
        BudgetSpent: the release would exceed the device's privacy limit; nothing leaves it then.
    """
    setup, shard = world.setup, world.shard(device)
    projected = space.project(world.train_features(shard.train))
    release = setup.mechanism.release(
        projected,
        setup.mixture,
        space,
        stream_seed(setup.seed, "mixture", device),
        labels=world.dataset.train.labels[shard.train],
        class_count=len(world.dataset.classes),
    )
    report = Report(
        device=device,
        mixture=release.mixture,
        budget=world.budget(device),
        images=release.images,
        classes=shard.classes if setup.share_classes else None,
    )
    entries = (*release.entries, *unprotected_entries(release.images_are_true, setup.share_classes))
    Ledger(epsilon=setup.privacy_limit).book(device, "report", entries)
    return Upload(pack_report(report), entries)


def evaluate(world: World, device: int, model: torch.nn.Module, rows: tuple[int, ...]) -> Evaluation:
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
    edge = predict(
        model,
        world.base.preprocess,
        images,
        shard.test,
        precision=world.setup.precision,
        device=world.setup.compute,
    )
    every_class = tuple(range(base.shape[1]))
    return Evaluation(
        images=len(labels),
        base=count_correct(base, labels, every_class, every_class),
        subclassifier=count_correct(base, labels, every_class, shard.classes),
        edge=count_correct(edge, labels, rows, shard.classes),
    )


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
