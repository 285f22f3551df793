"""Which runs are there: a row a run, read without opening data, models or devices' rows."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from fedprune.core.errors import DataError
from fedprune.core.files import read_json
from fedprune.experiment.differences import differences

COLUMNS = ("run", "settings", "accuracy", "worst", "devices", "seconds", "finished", "folder")


def list_runs(pattern: str = "*", runs: str | Path = "runs") -> pd.DataFrame:
    """List the finished runs in the folder `runs` whose titles fit a pattern, the latest last.

    Returns:
        A row a run: its id, what it sets beyond the defaults, the mean accuracy of its edge models in percent and that
        of the worst 10 % of devices, devices that got one and all, seconds, when it finished, and its folder. Records
        are not verified here; damaged ones are left out (`fedprune verify RUN` says what is wrong).
    """
    rows = [row for folder in Path(runs).glob(pattern) if (row := _row(folder)) is not None]
    return pd.DataFrame(rows, columns=list(COLUMNS)).sort_values("finished", ignore_index=True)


def _row(folder: Path) -> dict[str, Any] | None:
    try:
        record, config = (read_json(folder / name) for name in ("record.json", "config.json"))
        summary = record["summary"]
        return {
            "run": str(record["run"]),
            "settings": " ".join(differences(config)),
            "accuracy": _percent(summary["edge_mean"]),
            "worst": _percent(summary["edge_worst"]),
            "devices": f"{int(summary['measured'])} of {int(summary['devices'])}",
            "seconds": float(record["seconds"]),
            "finished": datetime.fromisoformat(record["finished"]),
            "folder": str(folder),
        }
    except (OSError, DataError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * float(share)
