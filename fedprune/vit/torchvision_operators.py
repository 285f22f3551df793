"""Let torchvision import on a CPU build of torch.

The torchvision wheel of the package index is built for CUDA. On a CPU build of torch its extension does not load,
and then the import fails because two operators that it describes are not there. timm imports torchvision, so we
declare the two schemas first. Where the extension loads, nothing is declared. Calling such an operator still fails.
"""

import importlib.util
from pathlib import Path

import torch


def declare_missing_operators() -> None:
    """Declare torchvision's `nms` and `qnms` where its compiled extension cannot be loaded."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    for library in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
        except OSError:
            continue
        return
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            torch.library.define(
                f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
