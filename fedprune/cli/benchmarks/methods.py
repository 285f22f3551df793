"""Compare finished runs of many methods: accuracy by budget, paired differences from tap, time to derive."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's arguments."""
    parser.add_argument(
        "--runs", type=Path, required=True, help="folder of the runs, as `fedprune run -m runs=...` fills it"
    )
    parser.add_argument("--output", type=Path, default=Path("results/methods"), help="folder for tables and numbers")
    parser.add_argument("--name", default="glyphs", help="how the files are called")
    parser.add_argument("--against", default="tap + least_squares", help="the row that others are paired with")


def run(arguments: argparse.Namespace) -> int:
    """Collect the runs' devices, pair them, write a CSV file and a table."""
    import pandas as pd

    from fedprune.core.errors import DataError
    from fedprune.core.files import write_text
    from fedprune.experiment.record import is_finished

    frames = []
    for folder in sorted(path for path in arguments.runs.glob("*") if is_finished(path)):
        config = json.loads((folder / "config.json").read_text())
        devices = pd.read_parquet(folder / "devices.parquet")
        row = f"{config['method']['name']} + {config['recovery']['name']}"
        frames.append(devices.assign(row=row, seed=config["seed"], run=folder.name))
    if not frames:
        raise DataError(
            f"There is no finished run in {arguments.runs}. Run `fedprune run -m runs={arguments.runs}` first."
        )
    tidy = _tidy(pd.concat(frames, ignore_index=True))
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_text(arguments.output / f"{arguments.name}.csv", tidy.to_csv(index=False, lineterminator="\n"))
    table = _table(tidy, arguments.against)
    write_text(arguments.output / f"{arguments.name}.md", table.to_markdown(index=False) + "\n")
    print(table.to_markdown(index=False))
    best = table[table["row"] != "base + sub-classifier"].iloc[0]["row"]
    print(json.dumps({"rows": len(table), "runs": int(tidy["run"].nunique()), "best_mean": best}))
    return 0


def _tidy(devices: "pd.DataFrame") -> "pd.DataFrame":
    """Keep what the comparison needs, one row a device and run."""
    tidy = devices[["row", "seed", "device", "status", "classes", "test_images", "edge_correct"]].copy()
    tidy["subclassifier_correct"] = devices["subclassifier_correct"]
    tidy["removed"] = (1 - devices["budget_params"] / devices["base_params"]).round(2)
    tidy["used"] = devices["params"] / devices["budget_params"]
    tidy["derive_seconds"] = devices["derive_seconds"]
    tidy["recovery_seconds"] = devices.get("method_recovery_seconds")
    tidy["run"] = devices["run"]
    return tidy


def _table(tidy: "pd.DataFrame", against: str) -> "pd.DataFrame":
    """Return a row a method: mean accuracy by removed share, paired difference from `against`, seconds."""
    import numpy as np
    import pandas as pd

    from fedprune.experiment.statistics import estimate

    known = tidy[tidy["status"] == "ok"].assign(
        accuracy=lambda frame: 100 * frame["edge_correct"] / frame["test_images"],
        unpruned=lambda frame: 100 * frame["subclassifier_correct"] / frame["test_images"],
    )
    pairs = known.pivot_table(index=["seed", "device"], columns="row", values="accuracy")
    levels = sorted(known["removed"].unique())
    rows = []
    for name, part in known.groupby("row"):
        row: dict[str, object] = {"row": name, "seeds": part["seed"].nunique(), "devices": len(part)}
        for level in levels:
            found = estimate(dict(enumerate(part.loc[part["removed"] == level, "accuracy"])))
            row[f"{level:g} removed"] = f"{found.mean:.1f} ± {found.half_width:.1f}"
        row["mean"] = part["accuracy"].mean()
        if against in pairs and name != against:
            found = estimate(dict(enumerate((pairs[name] - pairs[against]).dropna())))
            row[f"paired: {against}"] = f"{found.mean:+.2f} ± {found.half_width:.2f}"
        row["seconds a device"] = round(float(part["derive_seconds"].median()), 2)
        rows.append(row)
    whole = known.drop_duplicates(["seed", "device"])
    top: dict[str, object] = {"row": "base + sub-classifier", "seeds": whole["seed"].nunique(), "devices": len(whole)}
    for level in levels:
        found = estimate(dict(enumerate(whole.loc[whole["removed"] == level, "unpruned"])))
        top[f"{level:g} removed"] = f"{found.mean:.1f} ± {found.half_width:.1f}"
    top["mean"] = whole["unpruned"].mean()
    table = pd.DataFrame([top, *sorted(rows, key=lambda row: -float(str(row["mean"])))])
    table["mean"] = table["mean"].astype(float).round(2)
    return table.replace({np.nan: ""})
