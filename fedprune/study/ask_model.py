"""What whoever holds an edge model and the base reads from their answers: for attacks on models."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import nn

from fedprune.attacks.attack import ModelAnswers
from fedprune.core.cache import cached_array
from fedprune.data.images import ImageSet, IntArray
from fedprune.mixture.mixture import FloatArray
from fedprune.protocol.private import PrivateShard
from fedprune.protocol.public import PublicWorld
from fedprune.protocol.storage import StoredModel
from fedprune.vit.base import predict

LEAST = -30.0  # log-probability of a class that a model cannot answer


def ask_model(stored: StoredModel, shard: PrivateShard, world: PublicWorld) -> ModelAnswers:
    """Ask a device's edge model and the base about its private images, and about all public validation images."""
    edge, base, classes = stored.build().model, world.base.model, tuple(range(world.base.shape.classes))
    rows, public = tuple(stored.card["classes"]), world.public
    key = [public.fingerprint, "validation", world.base.fingerprint, world.precision, world.compute]
    known = cached_array(world.cache, "logits", key, lambda: _ask(base, public.validation, world))

    def surer(images: ImageSet, of_base: NDArray[np.float32]) -> FloatArray:
        asked = _true(_ask(edge, images, world), images.labels, rows)
        return np.asarray(asked - _true(of_base, images.labels, classes))

    shares = np.zeros(len(classes))
    shares[list(rows)] = _shares(_ask(edge, public.validation, world))
    members, outsiders = surer(shard.train, _ask(base, shard.train, world)), surer(shard.test, shard.base_logits())
    return ModelAnswers(members, outsiders, shares, _shares(known))


def _ask(model: nn.Module, images: ImageSet, world: PublicWorld) -> NDArray[np.float32]:
    """Return logits (images, rows)."""
    everything, preprocess = np.arange(len(images)), world.base.preprocess
    return predict(model, preprocess, images, everything, precision=world.precision, device=world.compute)


def _shares(logits: NDArray[np.float32]) -> FloatArray:
    return np.asarray(np.exp(log_softmax(logits.astype(np.float64), axis=1)).mean(axis=0))


def _true(logits: NDArray[np.float32], labels: IntArray, rows: Sequence[int]) -> FloatArray:
    """Return the log-probability (images,) of each image's own class."""
    is_own = labels[:, None] == np.asarray(rows)
    own = np.where(is_own, log_softmax(logits.astype(np.float64), axis=1), LEAST)
    return np.asarray(np.maximum(own.max(axis=1), LEAST))
