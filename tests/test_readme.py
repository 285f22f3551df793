"""What README.md says can be done is done here: its commands are understood, its example method runs."""

import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fedprune.api.compression import configure
from fedprune.api.settings import several
from fedprune.cli import compress
from fedprune.cli.main import commands
from fedprune.experiment.compose import compose
from fedprune.study.plan import plan_of
from tests.conftest import SMALL
from tests.data.pictures import picture, write
from tests.situations import saw

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [README, *(path.read_text() for path in sorted((ROOT / "docs").rglob("*.md")))]
COMMANDS = sorted(
    {line.strip() for text in DOCUMENTS for line in re.findall(r"^ *(?:\w+=\S+ )?fedprune .*$", text, re.M)}
)
RUNS = [line.split("fedprune run ")[1] for line in COMMANDS if line.startswith("fedprune run ")]


PYTHON, EXAMPLE, CHECKING = re.findall(r"```python\n(.*?)```", README, re.S)


def test_there_are_commands_to_test():
    assert len(RUNS) >= 4


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_exists(line):
    name = line[line.index("fedprune ") :].split()[1]
    assert name in commands(ROOT / "fedprune" / "cli")


@pytest.mark.parametrize("line", RUNS)
def test_every_run_composes(line):
    words = line.split(" #")[0].split()
    settings = [word for word in words if not word.startswith(("-", "hydra"))]
    if "-m" in words:
        assert plan_of(settings).cells
    else:
        compose(settings)


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("fedprune compress ")])
def test_every_compression_is_understood(line):
    parser = argparse.ArgumentParser()
    compress.add_arguments(parser)
    words, behind = parser.parse_known_args(shlex.split(line.split(" #")[0])[2:])  # settings may stand behind options
    assert not [word for word in behind if word.startswith("-")]
    config = configure(words.model, words.heal, words.milliseconds, [*words.overrides, *behind])
    assert config.base.model == words.model
    limits = (words.removed, words.params, words.macs, words.memory, words.milliseconds)
    assert any(limit is not None for limit in limits)


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.M):
        assert re.search(rf"^{target}:", makefile, re.M)


def test_the_lines_of_python_run_in_small(tmp_path, shared_cache):
    small = [*SMALL, f"runs={tmp_path / 'runs'}", f"cache={shared_cache}", "oracle=false"]
    code = PYTHON.replace("fp.run(", f"fp.run(*{small}, ").replace(
        "list_runs()", f"list_runs(runs={str(tmp_path / 'runs')!r})"
    )
    swept = next(line for line in code.splitlines() if "fp.sweep(" in line)
    seen = {}
    exec(code.replace(swept, ""), seen)
    assert list(seen["run"].config.budgets.removed) == [0.5, 0.8]
    assert len(seen["class_names"]) == seen["model"].head.out_features
    plan = eval(swept.split("#")[0].replace("fp.sweep(", "dict(").split(").table")[0] + ")")
    assert len(plan_of(several([], plan)).cells) == 6


def test_the_example_method_runs_from_one_file(tmp_path, shared_cache):
    plugin = tmp_path / "quiet.py"
    plugin.write_text(EXAMPLE)
    environment = {**os.environ, "FEDPRUNE_PLUGINS": str(plugin)}
    small = [*SMALL, f"runs={tmp_path / 'runs'}", f"cache={shared_cache}", "oracle=false"]

    listed = subprocess.run(
        [sys.executable, "-m", "fedprune", "list", "methods"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "quiet" in listed.stdout

    finished = subprocess.run(
        [sys.executable, "-m", "fedprune", "run", "method=quiet", *small],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert "averages over 3 of 3 devices" in finished.stdout
    assert list((tmp_path / "runs").glob("glyphs-quiet-*/record.json"))


def test_the_example_method_keeps_the_contract(tmp_path):
    (tmp_path / "quiet.py").write_text(EXAMPLE)
    needs_no_pytest = "import sys\nassert not {'pytest', 'hypothesis'} & set(sys.modules)\n"
    (tmp_path / "checking.py").write_text(CHECKING + needs_no_pytest)
    subprocess.run([sys.executable, "checking.py"], cwd=tmp_path, check=True)


OWN = [
    line.split()
    for line in README.split("## Your own data")[1].split("## ")[0].splitlines()
    if "fedprune run" in line and "/path/to" in line
]


@pytest.mark.parametrize("words", OWN, ids=" ".join)
def test_the_lines_for_own_data_read_and_deal_it_as_they_stand(words, tmp_path):
    images = [picture(value) for value in range(120)]
    for split, part in (("train", images[:90]), ("test", images[90:])):
        labels = [value % 3 for value in range(len(part))]
        write(tmp_path / f"{split}.parquet", part, labels)
        for number, (image, label) in enumerate(zip(part, labels, strict=True)):
            path = tmp_path / split / f"class {label}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image)
    config = compose([re.sub(r"/path/to/\w+", str(tmp_path), word) for word in words[2:]])
    dataset = config.data.load()
    partition = config.partition.split(dataset, config.seed)
    assert (len(dataset.train), len(dataset.test), len(dataset.classes)) == (90, 30, 3)
    assert len(partition.shards) == 12
    assert all(len(shard.train) for shard in partition.shards)
    taught = config.base.name == "trained" or config.base.head == "probe"
    assert taught, "its classes are taught to the base, so any number of them fits"
    saw("README's lines for own data", "read and dealt in the tests as they stand there")


def test_there_are_lines_for_own_data():
    assert len(OWN) == 2
