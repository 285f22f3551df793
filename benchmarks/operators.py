"""Where the time of dense and pruned models goes, operator by operator: why speed-up stays behind the ratio of MACs."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Words in the names of torch's operators, in the order in which they are looked for.
GROUPS = {
    "attention": ("attention",),
    "linear layers": ("mm",),
    "layer norm": ("layer_norm",),
    "GELU": ("gelu",),
    "patch embedding": ("conv",),
}
OTHERS = "copies, additions and the rest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    parser.add_argument("--bases", nargs="+", default=["deit_tiny", "deit_small"])
    parser.add_argument("--passes", type=int, default=20)
    parser.add_argument("--output", type=Path, help="folder for operators.md")


def run(arguments: argparse.Namespace) -> int:
    """Profile one image through each dense model and its 80 % smaller edge model; end with one JSON line."""
    import torch

    from benchmarks.speedup import derive
    from fedprune.core.files import write_text
    from fedprune.vit.counts import count_macs

    torch.set_num_threads(1)
    lines = [
        "# Where the time goes",
        "",
        "Milliseconds of one image, eager torch, one thread; dense, 80 % of the parameters removed, and their ratio.",
    ]
    summary: dict[str, object] = {"bench": "operators"}
    for name in arguments.bases:
        models = derive(name, ("embed", "heads", "neurons"), 16)
        dense, edge = models[0], models[-1]
        before, after = (profile_groups(model.model, arguments.passes) for model in (dense, edge))
        ideal = count_macs(dense.shape) / count_macs(edge.shape)
        ratios = {group: before[group] / after[group] for group in before}
        summary[name] = {"mac_ratio": round(ideal, 2), **{group: round(ratio, 2) for group, ratio in ratios.items()}}
        lines += [
            "",
            f"## {name}: {ideal:.2f} times fewer MACs",
            "",
            "| | dense | edge | ratio |",
            "|---|---:|---:|---:|",
        ]
        lines += [f"| {group} | {before[group]:.2f} | {after[group]:.2f} | {ratios[group]:.2f} |" for group in before]
        whole, small = sum(before.values()), sum(after.values())
        lines.append(f"| all | {whole:.2f} | {small:.2f} | {whole / small:.2f} |")
    print("\n".join(lines))
    if arguments.output:
        write_text(arguments.output / "operators.md", "\n".join(lines) + "\n")
    print(json.dumps(summary))
    return 0


def profile_groups(model: "torch.nn.Module", passes: int) -> dict[str, float]:
    """Return milliseconds of one image's pass by group of operators."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for _ in range(5):
            model(image)
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            for _ in range(passes):
                model(image)
    times = dict.fromkeys([*GROUPS, OTHERS], 0.0)
    for event in profiler.key_averages():
        group = next((group for group, words in GROUPS.items() if any(word in event.key for word in words)), OTHERS)
        times[group] += event.self_cpu_time_total / passes / 1000
    return times
