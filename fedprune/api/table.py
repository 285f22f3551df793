"""Many runs: swept, and their numbers as a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fedprune.api.cells import measure_missing, run_missing
from fedprune.api.run import Run
from fedprune.api.settings import several
from fedprune.core.errors import ConfigError
from fedprune.experiment.record import is_finished, read_record
from fedprune.report.results import read_csv
from fedprune.report.table import build_table, summary_rows
from fedprune.study.collect import collect
from fedprune.study.plan import Plan, plan_of

STATISTICS = {
    "ours": "mean",
    "half_width_95": "half_width_95",
    "spread_of_devices": "spread_of_devices",
    "seeds": "seeds",
    "paper": "paper",
}


@dataclass(frozen=True)
class Sweep:
    """Many runs under one plan.

    Attributes:
        plan: All that was planned.
    """

    plan: Plan

    @property
    def runs(self) -> list[Run]:
        """The runs that are finished, in the plan's order."""
        folders = [cell.folder for cell in self.plan.cells]
        return [Run(read_record(folder)) for folder in folders if is_finished(folder)]

    @property
    def tidy(self) -> pd.DataFrame:
        """A row a number: table row, column, metric, seed, value; NaN where the run is missing."""
        return collect(self.plan.readings)

    @property
    def table(self) -> pd.DataFrame:
        """Means over seeds, halves of 95 % intervals, deviations over devices and seeds, a row of the table a row."""
        return frame_of(self.plan, self.tidy)

    def _repr_html_(self) -> str:
        return self.table.to_html(float_format="{:.1f}".format, na_rep="")


def sweep(
    *names: str,
    workers: int = 1,
    force: bool = False,
    track: str | None = None,
    smoke: bool = False,
    metrics: Sequence[str] = (),
    launcher: Sequence[str] = (),
    **options: Any,
) -> Sweep:
    """Run all combinations that are not there yet, as `fedprune run -m` does.

    `fp.sweep(method=["fedprune", "random"], seed=range(3))`; every list is an axis, and a value that is a list itself
    stands in a list: `**{"budgets.removed": [[0.5], [0.8]]}`.

    Args:
        *names: The name or file of a study or a sweep, or words of the command line.
        workers: Runs at the same time.
        force: Start runs afresh whose data or code have changed.
        track: Live curves: `tensorboard`, `mlflow` or `wandb`.
        smoke: The tiny version: it runs, its numbers mean nothing.
        metrics: Columns of the table of a sweep in place of the usual ones.
        launcher: Settings of a Hydra launcher, such as `hydra/launcher=submitit_slurm`, in place of child processes.
        **options: Settings by key.

    Raises:
        FedpruneError: a name or a setting is wrong; nothing has run then.
    """
    plan = plan_of(several(names, options), smoke, metrics)
    run_missing(plan, None if launcher else workers, track, force, launcher)
    measure_missing(plan.readings)
    return Sweep(plan)


def table(
    *names: str, smoke: bool = False, metrics: Sequence[str] = (), csv: str | Path | None = None, **options: Any
) -> pd.DataFrame:
    """Return the table of a study, a sweep or settings from the runs that are there, as `fedprune table` does.

    `fp.table("tap/comparison", scale="cifar")["mean"]` has a row a row and a column a column of that table.

    Args:
        *names: As of `sweep`, which runs what is missing.
        smoke: The tiny version.
        metrics: As of `sweep`.
        csv: Take these tidy rows, for instance of `results/`, in place of runs.
        **options: Settings by key, for instance `scale` and `seed`.

    Returns:
        Means over seeds below `mean`, standard deviations over devices below `spread_of_devices`, halves of 95 %
        intervals below `half_width_95`, of differences and of numbers of whole runs, and `seeds`; below `paper` what a
        paper prints, where it does. NaN where runs are missing.

    Raises:
        ConfigError: a name or setting is wrong, or it is a figure from inside models.
    """
    plan = plan_of(several(names, options), smoke, metrics)
    if not plan.readings:
        raise ConfigError(f"{plan.study.name} is drawn from inside the models: use `fedprune figure`.")
    return frame_of(plan, read_csv(Path(csv)) if csv else collect(plan.readings))


def frame_of(plan: Plan, tidy: pd.DataFrame) -> pd.DataFrame:
    """Lay out a plan's numbers as its table has them, rows and columns in its order."""
    built = build_table(plan.study, plan.scale, tidy)
    rows = summary_rows(built).rename(columns=STATISTICS)
    shown = [name for name in STATISTICS.values() if name != "paper" or rows["paper"].notna().any()]
    wide = rows.pivot(index="row", columns="column", values=shown)
    order = pd.MultiIndex.from_product([shown, built.columns], names=[None, "column"])
    return wide.reindex(index=pd.Index(built.rows, name="row"), columns=order)
