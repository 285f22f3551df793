"""docs/tutorial.md is done as it stands, in small: its commands and scripts in order, the last in another process."""

import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fedprune.cli.main import main
from tests.conftest import SMALL

TUTORIAL = (Path(__file__).parents[1] / "docs" / "tutorial.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TUTORIAL, re.S | re.M)
SCRIPTS = {code.split("\n")[0].removeprefix("# "): code for language, code in BLOCKS if language == "python"}
LINES = [line for language, text in BLOCKS if not language for line in text.splitlines()]
STEPS = [line for line in LINES if re.match(r"fedprune |(\S*/)?python \w+\.py", line)]
INSTALLING = [line for line in LINES if line not in STEPS]
ELSEWHERE = "import runpy, sys\nrunpy.run_path('answer.py')\nassert not {'torch', 'fedprune'} & set(sys.modules)"


def test_the_tutorial_ends_in_another_process_with_the_accuracy_that_the_card_tells(
    tmp_path, monkeypatch, shared_cache, capfd
):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    for name, code in SCRIPTS.items():
        Path(name).write_text(code)
    for line in STEPS:
        words = shlex.split(line.replace("RUN", _first_run()))
        if words[0] == "fedprune":
            assert main([*words[1:], *_in_small(words, shared_cache)]) == 0, line
        elif words[1] == "answer.py":
            subprocess.run([sys.executable, "-c", ELSEWHERE], check=True)
        else:
            monkeypatch.setattr(sys, "argv", words[1:])
            runpy.run_path(words[1])
    (card,) = Path("exported").glob("*.json")
    (facts,) = json.loads(card.read_text())["files"].values()
    (told,) = (share for fact, share in facts.items() if "all 160 outputs asked" in fact)
    share, images = re.findall(r"(\S+) % of (\d+) images right, all 160 characters asked", capfd.readouterr().out)[-1]
    assert float(share) == pytest.approx(100 * told, abs=0.06)
    assert int(images) == len(list(Path("images").glob("*.png"))) > 10


def _first_run() -> str:
    """Return the id of the run that the tutorial calls RUN; before it there is none."""
    return next((path.name.rsplit("-", 1)[-1] for path in Path("runs").glob("*-fedprune-*")), "RUN")


def _in_small(words: list[str], cache: Path) -> list[str]:
    """Return settings that make a run one of seconds; those that the line has itself stay."""
    mine = {word.split("=")[0] for word in words}
    small = [word for word in (*SMALL, f"cache={cache}") if word.split("=")[0] not in mine]
    return small if words[1] in ("run", "table") else []


def test_the_installation_names_what_there_is():
    root = Path(__file__).parents[1]
    (install,) = [line for line in INSTALLING if "-e '.[" in line]
    (extra,) = re.findall(r"'\.\[(\w+)\]'", install)
    assert re.search(rf"^{extra} = \[", (root / "pyproject.toml").read_text(), re.M)
    assert (root / re.findall(r"-c (\S+)", install)[0]).is_file()
