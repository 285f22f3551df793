"""The model card that travels with an exported edge model: JSON for programs, Markdown for people."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fedprune.core.text import printable
from fedprune.vit.counts import count_macs, count_params, peak_memory
from fedprune.vit.shape import Shape


def card_of(shape: Shape, card: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return the whole card as plain JSON values: what the model's file says (`card`), exact counts, and `more`.

    Counts that the file holds itself, because of a token reducer, win over those of its shape.
    """
    counts = {"parameters": count_params(shape), "macs": count_macs(shape), "memory_bytes": peak_memory(shape)}
    return {**card, **more, "counts": {**counts, **card.get("counts", {})}, "shape": asdict(shape)}


def markdown_of(card: Mapping[str, Any], name: str) -> str:
    """Return a card as Markdown."""
    counts, shape, preprocess = card["counts"], card["shape"], card["preprocess"]
    known = {
        "classes", "class_names", "preprocess", "notes", "counts", "shape", "budget", "accuracy", "tokens", "measured",
        "files",
    }  # fmt: skip
    names = card.get("class_names") or card["classes"]
    lines = [
        f"# {name}",
        "",
        "A vision transformer that fedprune cut out of a larger one for a single device. Load it with "
        "`fedprune.load_edge_model(path)`; it is a plain PyTorch module.",
        "",
        "## Size",
        "",
        f"- {counts['parameters']:,} parameters, {counts['macs']:,} multiply-accumulates an image, "
        f"{counts['memory_bytes'] / 2**20:.1f} MiB of float32 weights and peak activations",
        *([_tokens(card["tokens"], counts)] if "tokens" in card else []),
        *[f"- budget: {limit}" for limit in _facts(card.get("budget"))],
        f"- embedding width {shape['embed']}, {len(shape['blocks'])} blocks:",
        "",
        "| block | heads | query-key width | value width | neurons |",
        "|---|---|---|---|---|",
        *[
            f"| {index} | {block['heads']} | {block['qk']} | {block['v']} | {block['neurons']} |"
            for index, block in enumerate(shape["blocks"])
        ],
        "",
        "## Input and output",
        "",
        f"- RGB images of {preprocess['image_size']} x {preprocess['image_size']} pixels with values from 0 to 1, less "
        f"mean {preprocess['mean']}, divided by standard deviation {preprocess['std']}; bicubic resizing",
        f"- {len(card['classes'])} logits, in this order: {', '.join(map(_verbatim, names))}",
        "",
        *(["## Before and after", "", *_measured(card["measured"])] if "measured" in card else ["## Accuracy", ""]),
        *(f"- {fact}" for fact in _facts(card.get("accuracy")) or ["not measured"] if "measured" not in card),
        "",
        *_files(card.get("files", {})),
        "## Provenance",
        "",
        *[f"- {key}: {_plain(value)}" for key, value in card.items() if key not in known],
        *[f"- {key}: {value}" for key, value in card["notes"].items()],
    ]
    return "\n".join(lines) + "\n"


def comparison(measured: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return a table of what was measured of a dense model and of what was cut from it: what, before, after.

    Args:
        measured: `images`, how many were held out, and `before` and `after` as `api.judge.Figures` names them.
    """
    before, after = measured["before"], measured["after"]

    def both(title: str, key: str, form: str, unit: float = 1) -> list[tuple[str, str, str]]:
        known = None not in (before[key], after[key])
        return [(title, format(before[key] / unit, form), format(after[key] / unit, form))] if known else []

    return [
        *both("parameters", "parameters", ",.0f"),
        *both("multiply-accumulates an image", "macs", ",.0f"),
        *both("weights and peak activations (MiB)", "memory_bytes", ".1f", 2**20),
        *both("milliseconds an image, one thread", "milliseconds", ".1f"),
        *both(f"same answer as before, {measured['images']} held-out images (%)", "agreement", ".1f", 0.01),
        *both("KL divergence from the answers before", "divergence", ".3f"),
        *both("accuracy (%)", "accuracy", ".1f", 0.01),
    ]


def _measured(measured: Mapping[str, Any]) -> list[str]:
    rows = [("", "before", "after"), ("---", "---:", "---:"), *comparison(measured)]
    return [f"| {' | '.join(row)} |" for row in rows]


def _files(files: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not files:
        return []
    facts = list(next(iter(files.values())))
    rows = [[_verbatim(name), *(_facts(told[fact])[0] for fact in facts)] for name, told in files.items()]
    table = [["file", *facts], ["---"] * (1 + len(facts)), *rows]
    return ["## Files", "", *(f"| {' | '.join(row)} |" for row in table), ""]


def _tokens(reducer: Mapping[str, Any], counts: Mapping[str, Any]) -> str:
    entering = ", ".join(map(str, counts["tokens"]))
    return f"- token reducer {reducer['name']} at keep {reducer['keep']}: {entering} tokens enter the blocks in turn"


def _facts(values: Mapping[str, Any] | float | None) -> list[str]:
    if values is None:
        return []
    if isinstance(values, Mapping):
        return [f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}" for key, value in values.items()]
    return [f"{values:,}" if isinstance(values, int) else str(values)]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else _verbatim(json.dumps(value, ensure_ascii=False))


def _verbatim(value: object) -> str:
    """Write what somebody else named so that Markdown takes no sign of it for its own."""
    return f"`{printable(str(value)).replace('`', chr(39))}`"
