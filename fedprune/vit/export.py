"""Take an edge model elsewhere: ONNX and torch.export with a free batch size, and ExecuTorch."""

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedprune.core.errors import MissingExtra, ModelError, require
from fedprune.core.files import write_atomic
from fedprune.vit.shape import Shape

TOLERANCE = 1e-4  # largest difference of a logit between torch and the exported graph
INSTALL_EXECUTORCH = "pip install executorch"


def export_onnx(model: nn.Module, shape: Shape, path: Path, *, fast: bool = False) -> None:
    """Write `model` as ONNX: input `pixels` (batch, 3, size, size), output `logits` (batch, classes).

    Args:
        model: An edge model.
        shape: Its shape.
        path: The file to write.
        fast: Use torch's older exporter, which takes a fraction of the time; for measurements of many models.

    Raises:
        MissingExtra: onnx is not installed.
    """
    for module in ("onnx", "onnxscript"):
        require(module, "onnx")
    if fast:
        options: dict[str, Any] = {"dynamo": False, "dynamic_axes": {"pixels": {0: "batch"}, "logits": {0: "batch"}}}
    else:
        options = {"dynamo": True, "dynamic_shapes": ({0: torch.export.Dim("batch")},), "external_data": False}

    def write(temporary: Path) -> None:
        _quietly(
            torch.onnx.export,
            model.eval(),
            (_example(shape, 2),),
            str(temporary),
            input_names=["pixels"],
            output_names=["logits"],
            **options,
        )
        _tidy(temporary)

    write_atomic(path, write)


def _tidy(path: Path) -> None:
    """Take out of a graph what no runtime needs, and infer its shapes anew.

    The exporter leaves a stack trace a node, which is as large as a small model and names folders of this machine, and
    shapes from before it transposed weights, over which onnxruntime's tools stumble.
    """
    onnx = require("onnx", "onnx")
    graph = onnx.load(path)
    del graph.graph.value_info[:]
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.save(onnx.shape_inference.infer_shapes(graph, strict_mode=True), path)


def export_torch(model: nn.Module, shape: Shape, path: Path) -> None:
    """Write `model` as a torch.export program (`.pt2`) with a free batch size; `torch.export.load` reads it alone."""
    program = torch.export.export(
        model.eval(), (_example(shape, 2),), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
    )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names folders of this machine
    write_atomic(path, lambda temporary: _quietly(torch.export.save, program, temporary))


def check_torch(model: nn.Module, path: Path, pixels: Tensor) -> float:
    """Return the largest difference between a model and the torch.export program in `path`.

    Raises:
        ModelError: it is larger than `TOLERANCE`.
    """
    program = torch.export.load(path).module()
    with torch.inference_mode():
        outputs = [torch.cat([program(image[None]) for image in pixels]), program(pixels)]
        expected = model.eval()(pixels)
    return _within_tolerance(path, max(float((output - expected).abs().max()) for output in outputs))


def onnx_session(path: Path, threads: int = 1) -> Any:
    """Open an ONNX file with onnxruntime on the CPU."""
    runtime = require("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def check_onnx(model: nn.Module, path: Path, pixels: Tensor) -> float:
    """Return the largest difference between torch and onnxruntime on `pixels`, all at once and one by one.

    Raises:
        ModelError: it is larger than `TOLERANCE`.
    """
    session = onnx_session(path)
    with torch.inference_mode():
        expected = model.eval()(pixels).numpy()
    together = session.run(None, {"pixels": pixels.numpy()})[0]
    single = np.concatenate([session.run(None, {"pixels": image[None].numpy()})[0] for image in pixels])
    return _within_tolerance(path, float(max(np.abs(together - expected).max(), np.abs(single - expected).max())))


def _within_tolerance(path: Path, error: float) -> float:
    if not error <= TOLERANCE:
        raise ModelError(f"{path} differs from torch by {error:.1e}, more than {TOLERANCE:.0e}. Do not use it.")
    return error


def export_executorch(model: nn.Module, shape: Shape, path: Path) -> None:
    """Write `model` as an ExecuTorch program for XNNPACK, batch size 1.

    Raises:
        MissingExtra: executorch is not installed.
    """
    try:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower
    except ImportError as error:
        raise MissingExtra(
            f"This needs executorch. Install it with: {INSTALL_EXECUTORCH} (in an environment of its own, because its "
            "attrs and that of dp-accounting exclude each other)."
        ) from error
    program = torch.export.export(model.eval(), (_example(shape, 1),))
    lowered = _quietly(to_edge_transform_and_lower, program, partitioner=[XnnpackPartitioner()])
    content = lowered.to_executorch().buffer
    write_atomic(path, lambda temporary: _write(temporary, content))


def _example(shape: Shape, batch: int) -> Tensor:
    return torch.zeros(batch, 3, shape.image_size, shape.image_size)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _quietly(function: Any, *arguments: Any, **options: Any) -> Any:
    """Call an exporter without its chatter; its errors come through."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return function(*arguments, **options)
