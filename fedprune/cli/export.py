"""Take edge models out of a run: safetensors, ONNX, torch.export or ExecuTorch, with a model card.

`--int8` writes a smaller ONNX file beside the float one, `--optimize` fuses its operators for onnxruntime. A `.pt2`
file of `--format torch_export` is read by `torch.export.load`, where fedprune is not installed.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fedprune.api.formats import SUFFIXES

if TYPE_CHECKING:
    from fedprune.api.export import Exported


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("source", metavar="RUN", help="a run (folder, title or beginning of its id), or a model file")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--device", type=int, help="which device's model; needed unless a model file is given")
    which.add_argument("--all", action="store_true", help="the models of all devices")
    parser.add_argument("--format", choices=SUFFIXES, default="safetensors", help="what to write")
    parser.add_argument("--int8", action="store_true", help="ONNX with 8-bit integers too, calibrated on the proxy set")
    parser.add_argument("--optimize", action="store_true", help="ONNX with fused operators, for onnxruntime alone")
    parser.add_argument("--output", type=Path, default=Path("exported"), help="folder to write to")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs")


def run(arguments: argparse.Namespace) -> int:
    """Write the models and their cards, checked against torch where they are in another format."""
    from fedprune.api.export import Form, export_device, export_file
    from fedprune.core.errors import ConfigError
    from fedprune.experiment.record import find_run, read_record

    form = Form(arguments.format, arguments.int8, arguments.optimize)
    if Path(arguments.source).is_file():
        if arguments.all or arguments.device is not None:
            raise ConfigError("A model file is one model. Leave out --device and --all.")
        _tell(export_file(Path(arguments.source), form, arguments.output))
        return 0
    folder = find_run(arguments.source, arguments.runs)
    if arguments.device is None and not arguments.all:
        raise ConfigError("Say which device's model to export: add --device and its number, or --all.")
    record = read_record(folder)
    for device in record.answered if arguments.all else [arguments.device]:
        _tell(export_device(record, device, form, arguments.output))
    return 0


def _tell(exported: "Exported") -> None:
    """Print what was measured and written."""
    card = exported.card
    if (error := card.get("largest_difference_from_torch")) is not None:
        print(f"Largest difference from torch: {error:.1e}")
    for name, facts in card.get("files", {}).items():
        print(f"{name}: {', '.join(f'{_short(value)} {fact}' for fact, value in facts.items())}")
    first, *others = exported.files
    print(f"Wrote {first}, {', '.join(path.name for path in others)}")


def _short(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
