"""Write a stored model in the format that is asked for, checked against torch; importing this file costs nothing."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from fedprune.protocol.storage import StoredModel

SUFFIXES = {"safetensors": ".safetensors", "onnx": ".onnx", "torch_export": ".pt2", "executorch": ".pte"}


def write_model(stored: "StoredModel", format: str, path: Path, pixels: "Tensor | None") -> float | None:
    """Write a model; return the largest difference of its answers from torch's where the format can be asked.

    Args:
        stored: The model.
        format: One of `SUFFIXES`.
        path: The file.
        pixels: (images, 3, side, side) to compare on; without them nothing is compared.

    Raises:
        MissingExtra: the format needs a package that is not installed.
        ModelError: the answers differ by more than rounding.
    """
    from fedprune.vit.export import check_onnx, check_torch, export_executorch, export_onnx, export_torch

    if format == "safetensors":
        stored.write(path)
        return None
    model = stored.build().model
    if format == "executorch":
        export_executorch(model, stored.shape, path)
        return None
    export, check = (export_torch, check_torch) if format == "torch_export" else (export_onnx, check_onnx)
    export(model, stored.shape, path)
    return None if pixels is None else check(model, path, pixels)
