"""Small image files and tables of them."""

import io
import json

import pyarrow
import pyarrow.parquet
from PIL import Image


def encoded(image, kind="png", **options):
    """The bytes of an image."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(value, size=(6, 6), kind="png"):
    """A plain image whose red channel is `value`."""
    return encoded(Image.new("RGB", size, (value, 0, 255 - value)), kind)


def write(path, images, labels, groups=None, names=None, image="image", metadata=None):
    """Write a parquet file of the hub's layout."""
    columns = {image: [{"bytes": value, "path": "x"} for value in images], "label": labels}
    if groups is not None:
        columns["group"] = groups
    table = pyarrow.table(columns)
    if names:
        features = {column: {"names": values, "_type": "ClassLabel"} for column, values in names.items()}
        metadata = {"info": {"features": features}}
    if metadata is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps(metadata)})
    pyarrow.parquet.write_table(table, path)


def fill(folder, names, value=0):
    """Write one image a name below `folder`, each another one; returns the values by name."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(value + number))
