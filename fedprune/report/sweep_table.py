"""The table of any sweep: a row for each choice of its axes, averaged over seeds, no study file needed."""

from collections.abc import Sequence

from fedprune.report.table import Table, build_table
from fedprune.study.collect import Reading, collect
from fedprune.study.metrics import metric
from fedprune.study.scales import Scale
from fedprune.study.study import Line, Study
from fedprune.study.sweep import Sweep

COLUMNS = {
    "base": "base_accuracy",
    "base + sub-classifier": "subclassifier_accuracy",
    "edge model": "edge_accuracy",
    "worst 10 % of devices": "worst edge_accuracy",
    "oracle proxy set": "oracle_accuracy",
    "params kept (%)": "params_kept",
    "MACs kept (%)": "macs_kept",
}


def sweep_table(sweep: Sweep, metrics: Sequence[str] = ()) -> Table:
    """Build the table of a sweep's runs; the axis `seed` is averaged over.

    Args:
        sweep: Planned cells; those without a record are shown as missing.
        metrics: Names of metrics in place of the usual columns.

    Raises:
        ConfigError: a metric is unknown.
    """
    with_oracle = any(cell.config.oracle for cell in sweep.cells)
    usual = {label: name for label, name in COLUMNS.items() if with_oracle or name != "oracle_accuracy"}
    chosen = {metric(name).label: name for name in metrics} or usual
    readings, heads = [], []
    for cell in sweep.cells:
        head = ", ".join(f"{axis}={label}" for axis, label in cell.labels.items() if axis != "seed") or sweep.name
        heads.append(head)
        readings += [Reading(head, column, metric(name), cell) for column, name in chosen.items()]
    seeds = {cell.config.seed for cell in sweep.cells}
    study = Study(
        name=f"sweep/{sweep.name}",
        kind="table",
        title="the planned runs",
        scales={"any": Scale(len(seeds), note="As the runs' own settings say.")},
        rows=tuple(Line(head) for head in dict.fromkeys(heads)),
        columns=tuple(Line(column, metric=name) for column, name in chosen.items()),
    )
    return build_table(study, "any", collect(readings))
