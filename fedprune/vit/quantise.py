"""An ONNX file made smaller and faster by onnxruntime's own tools: 8-bit integers, fused operators."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedprune.core.errors import require
from fedprune.core.files import write_atomic

MULTIPLY = ["Conv", "Gemm", "MatMul"]
BATCH = 16  # images a calibration step


def quantise(source: Path, target: Path, pixels: NDArray[np.float32]) -> None:
    """Write the graph in `source` with 8-bit weights and activations where weights are multiplied.

    Residual additions, normalisations, GELU, softmax and the products inside attention stay in float: a vision
    transformer whose residual stream is rounded to 8 bits collapses. Weights have a scale a channel and seven bits, so
    that processors without VNNI, whose 16-bit sums saturate, give the same answers.

    Args:
        source: A graph with the input `pixels`.
        target: The file to write.
        pixels: Its input (images, 3, size, size) for calibration: what activations span there is what 8 bits span.

    Raises:
        MissingExtra: onnxruntime is not installed.
    """
    onnx = require("onnx", "onnx")
    require("onnxruntime", "onnx")
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Batches(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._next = ({"pixels": pixels[start : start + BATCH]} for start in range(0, len(pixels), BATCH))

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self._next, None)

    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared))
        write_atomic(
            target,
            lambda temporary: quantize_static(
                str(prepared),
                str(temporary),
                Batches(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=MULTIPLY,
                extra_options={"OpTypesToExcludeOutputQuantization": MULTIPLY},
                nodes_to_exclude=_without_weights(onnx.load(prepared)),
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            ),
        )


def fuse(source: Path, target: Path) -> dict[str, int]:
    """Write the graph in `source` with transformer operators fused, and return how many of each kind.

    The result has operators that only onnxruntime knows.

    Raises:
        MissingExtra: onnxruntime is not installed.
    """
    optimizer = require("onnxruntime.transformers.optimizer", "onnx")
    with _quiet():  # heads differ from block to block, so no number of them is told
        fused = optimizer.optimize_model(str(source), model_type="vit", num_heads=0, hidden_size=0, opt_level=1)
        write_atomic(target, lambda temporary: fused.save_model_to_file(str(temporary)))
    return {name: count for name, count in fused.get_fused_operator_statistics().items() if count}


def _without_weights(graph: Any) -> list[str]:
    """Return the names of products of two activations: inside attention."""
    weights = {tensor.name for tensor in graph.graph.initializer}
    return [node.name for node in graph.graph.node if node.op_type == "MatMul" and not weights & set(node.input)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tools' advice out of the log."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
