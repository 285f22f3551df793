"""What a device does: report its mixture, evaluate and maybe train its edge model. Nothing else ever leaves it."""

import copy
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from fedprune.core.random import stream_seed
from fedprune.mixture.mixture import FeatureSpace
from fedprune.mixture.report import Report, pack_report
from fedprune.privacy.ledger import DELTA, SEEDED_NOISE, SYSTEM_NOISE, LedgerEntry, book_release
from fedprune.privacy.mechanism import Records
from fedprune.protocol.answers import Evaluation, PersonalEvaluation, Upload, count_correct
from fedprune.protocol.private import PrivateShard
from fedprune.protocol.storage import Loaded
from fedprune.recovery.personal import OwnImages
from fedprune.vit.base import predict


def make_report(
    shard: PrivateShard, space: FeatureSpace, *, simulated: bool = True, own_ledger: Path | None = None
) -> Upload:
    """Fit and guard the mixture of a device's private images, and pack it with the device's budget.

    Args:
        shard: The device's private shard.
        space: The public space.
        simulated: Whether the device is simulated: then its noise follows from the run's seed, and is booked so.
        own_ledger: File in which a real device books what it releases in all runs, before anything leaves it.

    Raises:
        BudgetSpent: the release would exceed the device's privacy limit; nothing leaves it then.
    """
    setup, device = shard.setup, shard.device
    records = Records(
        points=space.project(shard.train_features()),
        space=space,
        fit=setup.mixture,
        seed=stream_seed(setup.seed, "mixture", device),
        labels=shard.train.labels,
        class_count=shard.class_count,
        secret_noise=not simulated,
    )
    release = setup.mechanism.release(records)
    report = Report(
        device=device,
        mixture=release.mixture,
        budget=shard.budget,
        images=release.images,
        classes=shard.classes if setup.share_classes else None,
    )
    entries = tuple(_say_where_noise_is_from(entry, simulated) for entry in release.entries)
    delta = getattr(setup.mechanism, "delta", DELTA)
    book_release(own_ledger, device, setup.book(entries), setup.privacy_limit, delta)
    return Upload(pack_report(report), entries)


def _say_where_noise_is_from(entry: LedgerEntry, simulated: bool) -> LedgerEntry:
    if entry.noise is None:
        return entry
    return replace(entry, note=SEEDED_NOISE if simulated else SYSTEM_NOISE)


def evaluate(shard: PrivateShard, model: nn.Module, rows: tuple[int, ...]) -> Evaluation:
    """Evaluate base and edge model on a device's private test images.

    Args:
        shard: The device.
        model: The edge model.
        rows: Base class of each of the edge model's outputs.
    """
    labels, base = shard.test.labels, shard.base_logits()
    every_class = tuple(range(base.shape[1]))
    return Evaluation(
        images=len(labels),
        base=count_correct(base, labels, every_class, every_class),
        subclassifier=count_correct(base, labels, every_class, shard.classes),
        edge=_correct(shard, model, rows),
    )


def personalise(shard: PrivateShard, edge: Loaded, rows: tuple[int, ...]) -> PersonalEvaluation:
    """Train the edge model on a device's private training images, and evaluate it before and after.

    Args:
        shard: The device; its setup says how to train.
        edge: The edge model; the trained one is a copy.
        rows: Base class of each of the edge model's outputs.
    """
    before = evaluate(shard, edge.model, rows)
    began = time.perf_counter()
    trained = _trained(shard, edge, rows)
    seconds = time.perf_counter() - began
    reference = None
    if shard.setup.personal.trains_base:
        base, every_class = shard.base.model, tuple(range(shard.base.shape.classes))
        reference = _correct(shard, _trained(shard, Loaded(base, base), every_class), every_class)
    return PersonalEvaluation(before, _correct(shard, trained, rows), reference, seconds)


def _trained(shard: PrivateShard, edge: Loaded, rows: tuple[int, ...]) -> nn.Module:
    """Return a copy of `edge` trained on the device's own images; a token reducer inside it stays as it is."""
    edge, setup = copy.deepcopy(edge), shard.setup
    own = OwnImages(
        images=shard.train,
        indices=np.arange(len(shard.train)),
        preprocess=shard.base.preprocess,
        classes=shard.classes,
        seed=stream_seed(setup.seed, "personal", shard.device),
        precision=setup.precision,
    )
    setup.personal.train(edge.model, edge.backbone, rows, own)
    return edge.model


def _correct(shard: PrivateShard, model: nn.Module, rows: tuple[int, ...]) -> int:
    """Count the private test images that `model` gets right when only the device's classes are asked."""
    setup, everything = shard.setup, np.arange(len(shard.test))
    preprocess, precision = shard.base.preprocess, setup.precision
    logits = predict(model, preprocess, shard.test, everything, precision=precision, device=setup.compute)
    return count_correct(logits, shard.test.labels, rows, shard.classes)
