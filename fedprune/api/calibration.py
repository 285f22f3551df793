"""The images that a model is cut on, and those that it is judged on."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fedprune.core.errors import DataError, ModelError
from fedprune.core.hashing import content_hash
from fedprune.core.progress import batches
from fedprune.core.random import stream
from fedprune.data.images import ImageSet, IntArray
from fedprune.data.loose import UNKNOWN, LooseImages
from fedprune.data.public import PublicImages
from fedprune.vit.base import Base, Preprocess, predict
from fedprune.vit.head_rows import are_named, rows_of

LEAST = 20  # images, below which nothing could be said of what came out
HELD_OUT, AT_LEAST = 0.2, 50  # share of the images, and how many, that judge
BATCH = 64  # images a pass
CHOOSING, AT_LEAST_CHOOSING = 0.1, 25  # the same of those that healing chooses a step by


@dataclass(frozen=True)
class Cut:
    """Images by what they are for.

    Attributes:
        public: What a server would have: the pool is what the model is cut on, the validation cut what a recovery
            chooses by.
        held_out: What the result is judged on and nothing else.
    """

    public: PublicImages
    held_out: ImageSet


def with_rows(loose: LooseImages, head: int) -> tuple[LooseImages, str]:
    """Return images whose labels are rows of a head, -1 where that is not known, and a remark where there is one."""
    labels = loose.images.labels
    if (labels == UNKNOWN).all():
        return loose, ""
    try:
        names = loose.classes or tuple(map(str, range(head)))
        rows = np.append(rows_of(names, head), UNKNOWN)  # the last one is what -1 points to
    except ModelError as error:
        return _unlabelled(loose), _why(str(error))
    if labels.max() >= len(names):
        return _unlabelled(loose), _why(f"There is the label {labels.max()}, and the model has {head} classes.")
    assumed = f"The images' {head} classes are taken for the model's, in the natural order of their names."
    remark = assumed if loose.classes and not are_named(head) else ""
    return replace(loose, images=replace(loose.images, labels=rows[labels])), remark  # type: ignore[type-var]


def cut_images(loose: LooseImages, held_out: ImageSet | None, most: int, validates: bool, seed: int) -> Cut:
    """Cut images by chance into those that judge, those that a recovery chooses by, and those that are learned from.

    Of images with the same content one is kept.

    Args:
        loose: The images.
        held_out: Others that judge; without them some of `loose` do.
        most: Most images to learn from.
        validates: Whether a recovery chooses by images of its own.
        seed: Of the cut.

    Raises:
        DataError: there are too few images.
    """
    images = loose.images
    order: IntArray = stream(seed, "compress").permutation(np.unique(images.originals))
    if len(order) < LEAST:
        raise DataError(f"There are {len(order)} different images, and at least {LEAST} are needed. Add some.")
    judging, order = _split(order, 0 if held_out is not None else max(AT_LEAST, round(HELD_OUT * len(order))))
    choosing, order = _split(order, max(AT_LEAST_CHOOSING, round(CHOOSING * len(order))) if validates else 0)
    learning = np.sort(order[:most])
    public = PublicImages(
        "compress",
        images.take(learning),
        images.take(np.sort(choosing)),
        loose.classes,
        content_hash("compress", loose.fingerprint, learning, images.labels[learning]),
    )
    return Cut(public, images.take(np.sort(judging)) if held_out is None else held_out)


def labelled(
    public: PublicImages, base: Base, rows: tuple[int, ...] | None, precision: str, device: str
) -> PublicImages:
    """Put the base's own answers where a label is not known, so that every method can be used without labels.

    Args:
        public: The images; labels of the pool alone are read by methods.
        base: Answers.
        rows: The classes that are asked; None asks all.
        precision: Of the pass.
        device: Where it is made.
    """
    labels = public.pool.labels.copy()
    lacking = np.flatnonzero(labels == UNKNOWN)
    if not len(lacking):
        return public
    logits = answers(base.model, base.preprocess, public.pool, lacking, precision, device)
    asked = np.arange(base.shape.classes) if rows is None else np.array(rows)
    labels[lacking] = asked[logits[:, asked].argmax(1)]
    pool: ImageSet = replace(public.pool, labels=labels)  # type: ignore[type-var]
    return replace(public, pool=pool, fingerprint=content_hash(public.fingerprint, labels))


def answers(
    model: nn.Module, preprocess: Preprocess, images: ImageSet, indices: IntArray, precision: str, device: str
) -> NDArray[np.float32]:
    """Return logits (len(indices), classes) as `vit.base.predict` does, and tell how far it has come."""
    chunks = batches(indices, BATCH, "answers")
    return np.concatenate(
        [predict(model, preprocess, images, each, BATCH, precision=precision, device=device) for each in chunks]
    )


def _split(order: IntArray, count: int) -> tuple[IntArray, IntArray]:
    count = min(count, len(order) // 2)
    return order[:count], order[count:]


def _unlabelled(loose: LooseImages) -> LooseImages:
    labels = np.full(len(loose.images), UNKNOWN)
    return replace(loose, images=replace(loose.images, labels=labels))  # type: ignore[type-var]


def _why(error: str) -> str:
    return f"The images' classes are not used, and no accuracy is measured. {error.split('. ')[0].rstrip('.')}."
