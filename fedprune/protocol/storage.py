"""Edge models as files that another program loads: plain ones, and those with a token reducer inside."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedprune.core.registry import to_dict
from fedprune.protocol.options import import_options
from fedprune.protocol.row import TIMES
from fedprune.tokens.counts import count_edge, token_counts
from fedprune.tokens.reduced import ReducedModel
from fedprune.tokens.wire import pack, rebuild
from fedprune.vit.storage import EdgeFile, read_edge_file, write_edge_file
from fedprune.vit.surgery import EdgeModel


def save_edge_model(path: Path, edge: EdgeModel, card: Mapping[str, Any] | None = None) -> None:
    """Write `edge` to a safetensors file; `card` adds provenance, accuracy and the like as plain JSON values.

    What was measured in seconds stays in the run's record, so that equal runs write equal files.
    """
    arrays, tokens = pack(edge)
    full = {
        "classes": list(edge.classes),
        "preprocess": asdict(edge.preprocess),
        "notes": {name: value for name, value in edge.notes.items() if not name.endswith(TIMES)},
        **(card or {}),
    }
    if isinstance(edge.model, ReducedModel):
        params, macs = count_edge(edge)
        entering = [counts[0] for counts in token_counts(edge.shape, edge.model.at)]
        full["tokens"] = to_dict(edge.model.reducer)
        full["counts"] = {"parameters": params, "macs": macs, "tokens": entering}
    tensors = {name: torch.from_numpy(values).contiguous() for name, values in arrays.items()}
    write_edge_file(path, EdgeFile(edge.shape, full, tensors, tokens))


def load_edge_model(path: str | Path) -> nn.Module:
    """Load an edge model as a plain module in evaluation mode, bit-equal to the one that was saved.

    A token reducer is inside it, each image keeping the same number of tokens; a reducer of your own must be in a file
    that `FEDPRUNE_PLUGINS` names.

    Raises:
        ModelError: the file is missing, truncated, edited or not one of ours.
    """
    return module_of(read_edge_file(path))


def module_of(file: EdgeFile) -> nn.Module:
    """Return the module that a file holds.

    Raises:
        FedpruneError: the tensors do not fit the shape, or nobody knows the token reducer.
    """
    if file.tokens:
        import_options(("fedprune.tokens",))
    return rebuild(file.shape, file.tensors, file.tokens)
