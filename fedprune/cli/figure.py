"""Draw a paper's figure as PNG and SVG, from runs or from inside the models.

`fedprune figure nuwa/figure8` writes below `results/`; `--run` runs what is missing first, as `fedprune run -m` does.
"""

import argparse
import time
from pathlib import Path

from fedprune.cli.completion import add_settings
from fedprune.cli.run_arguments import add_plan_arguments, add_run_arguments, refuse_typos


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_settings(parser, "a figure, and settings for all runs", nargs="+", metavar="NAME | key=value")
    parser.add_argument("--run", action="store_true", dest="run_missing", help="run what is missing first")
    parser.add_argument(
        "--write", type=Path, default=Path("results"), metavar="FOLDER", help="where to (default results)"
    )
    add_run_arguments(parser)
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Plan, run what is missing if asked to, draw; 1 where a point is missing."""
    refuse_typos(arguments.overrides)

    from fedprune.cli.cells import carry_out, planned
    from fedprune.core.errors import ConfigError
    from fedprune.experiment.compose import expand
    from fedprune.report.figure import draw, is_measured
    from fedprune.report.pictures import draw_picture
    from fedprune.report.results import folder_of, note_picture, note_runs, stem_of, write_csv
    from fedprune.report.scene import Scene
    from fedprune.report.style import save
    from fedprune.study.cell import configure
    from fedprune.study.collect import collect, missing

    plan = planned(arguments, arguments.run_missing)
    study = plan.study
    if study.kind != "figure":
        raise ConfigError(f"{study.name} is a table. Use `fedprune table`; `fedprune list figures` names the figures.")
    carry_out(plan, arguments, arguments.run_missing)
    if arguments.status:
        return 0
    folder, stem = folder_of(arguments.write, study, plan.scale), stem_of(study)
    if not is_measured(study):
        if len(expand(plan.overrides)) > 1:
            raise ConfigError(f"{study.name} is drawn from inside one run's models. Give each setting one value.")
        start = time.perf_counter()
        scene = Scene(configure(study.common(plan.scale, arguments.smoke), plan.overrides))
        paths = save(draw_picture(study, scene), folder / stem)
        note_picture(folder, stem, scene.config, time.perf_counter() - start)
        print(f"written: {', '.join(map(str, paths))}")
        return 0
    tidy = collect(plan.readings)
    lost = len(missing(tidy))
    if lost:
        hint = "" if arguments.run_missing else " Add --run to run what is missing."
        print(f"{lost} of {len(tidy)} numbers are missing.{hint}")
        if not arguments.allow_missing:
            return 1
    write_csv(folder / f"{stem}.csv", tidy)
    note_runs(folder, plan)
    print(f"written: {', '.join(map(str, save(draw(study, plan.scale, tidy), folder / stem)))}")
    return 0
