"""A server's public images as files: parquet in the hub's layout, which any tool can write."""

import io
import json
from pathlib import Path

import numpy as np

from fedprune.core.errors import DataError
from fedprune.core.files import write_atomic
from fedprune.core.hashing import content_hash
from fedprune.data.encoded import EncodedImages, shorter_side
from fedprune.data.images import ImageSet, Pixels
from fedprune.data.labels import classes_of
from fedprune.data.public import PublicImages
from fedprune.data.table import Columns, Table, read_local

POOL, VALIDATION = "pool.parquet", "validation.parquet"
CHUNK = 512  # images that are encoded at a time


def read_public(folder: Path) -> PublicImages:
    """Read `pool.parquet` and `validation.parquet`, each with a column `image` and a column `label`.

    Images of another size than the first one are brought to its shorter side.

    Raises:
        DataError: files, columns or images are missing or wrong.
    """
    pool, validation = (_read(folder / file) for file in (POOL, VALIDATION))
    classes, labels, validation_labels = classes_of(pool.label, validation.label)
    side = shorter_side(pool.encoded[0], f"Image 0 of {pool.where}")
    images = EncodedImages(labels, pool.encoded, side, pool.where)
    cut = EncodedImages(validation_labels, validation.encoded, side, validation.where)
    fingerprint = content_hash("public", images.content(), labels, cut.content(), validation_labels, classes, side)
    return PublicImages(folder.name, images, cut, classes, fingerprint)


def write_public(folder: Path, public: PublicImages) -> None:
    """Write what `read_public` reads, pixel for pixel.

    Raises:
        FedpruneError: the folder cannot be written to.
    """
    write_atomic(folder / POOL, lambda path: _write(path, public.pool, public.classes))
    write_atomic(folder / VALIDATION, lambda path: _write(path, public.validation, public.classes))


def _read(path: Path) -> Table:
    if not path.is_file():
        raise DataError(f"There is no file {path}. Set public to the folder that holds {POOL} and {VALIDATION}.")
    return read_local([path], Columns("image", "label"))


def _write(path: Path, images: ImageSet, classes: tuple[str, ...]) -> None:
    import pyarrow
    import pyarrow.parquet

    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": classes}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pyarrow.schema({"image": pyarrow.binary(), "label": pyarrow.int64()}, metadata)
    with pyarrow.parquet.ParquetWriter(path, schema) as file:
        for start in range(0, len(images), CHUNK):
            indices = np.arange(start, min(start + CHUNK, len(images)))
            encoded = [_png(pixels) for pixels in images.read(indices)]
            file.write_batch(pyarrow.record_batch([encoded, images.labels[indices]], schema=schema))


def _png(pixels: Pixels) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
