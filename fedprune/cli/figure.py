"""Draw a paper's figure as PNG and SVG, from runs or from inside the models.

`fedprune figure nuwa/figure8 --scale glyphs` writes below `results/`; `--run` runs what is missing first.
"""

import argparse
import time
from pathlib import Path

from fedprune.cli.run_arguments import add_run_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("name", help="a figure of `fedprune list figures`")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings for all runs")
    parser.add_argument("--scale", default="glyphs", help="scale (default glyphs)")
    parser.add_argument("--seeds", type=int, nargs="+", help="seeds in place of the scale's own")
    parser.add_argument(
        "--smoke", action="store_true", help="the tiny version: shows that it runs, its numbers mean nothing"
    )
    parser.add_argument("--run", action="store_true", dest="run_missing", help="run what is missing first")
    parser.add_argument("--dry-run", action="store_true", help="compose and show every cell, run and draw nothing")
    parser.add_argument(
        "--write", type=Path, default=Path("results"), metavar="FOLDER", help="where to (default results)"
    )
    parser.add_argument("--allow-missing", action="store_true", help="draw and exit with 0 although points are missing")
    add_run_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Plan, run what is missing if asked to, draw; 1 where a point is missing."""
    from fedprune.cli.cells import gather
    from fedprune.report.figure import draw, is_measured
    from fedprune.report.pictures import draw_picture
    from fedprune.report.results import folder_of, note_picture, note_runs, stem_of, write_csv
    from fedprune.report.scene import Scene
    from fedprune.report.style import save
    from fedprune.study.collect import missing
    from fedprune.study.study import read_study
    from fedprune.study.sweep import configure

    study = read_study(arguments.name)
    folder, stem = folder_of(arguments.write, study, arguments.scale), stem_of(study)
    if not is_measured(study):
        if arguments.dry_run:
            print(f"{study.name} is drawn from inside the models; it needs no finished runs.")
            return 0
        start = time.perf_counter()
        scene = Scene(configure(study.common(arguments.scale, arguments.smoke), arguments.overrides))
        paths = save(draw_picture(study, scene), folder / stem)
        note_picture(folder, stem, scene.config, time.perf_counter() - start)
        print(f"written: {', '.join(map(str, paths))}")
        return 0
    gathered = gather(study, arguments)
    if gathered is None:
        return 0
    sweep, tidy = gathered
    lost = len(missing(tidy))
    if lost:
        print(f"{lost} of {len(tidy)} numbers are missing. Add --run to run what is missing.")
        if not arguments.allow_missing:
            return 1
    write_csv(folder / f"{stem}.csv", tidy)
    note_runs(folder, stem, sweep)
    print(f"written: {', '.join(map(str, save(draw(study, arguments.scale, tidy), folder / stem)))}")
    return 0
