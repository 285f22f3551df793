import subprocess
import sys
import time

import pytest

from fedprune.cli.main import main


def fedprune(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "fedprune", *words], capture_output=True, text=True)


@pytest.mark.parametrize("words", [("--help",), ("list", "methods"), ("list", "devices"), ("run", "--help")])
def test_help_and_lists_import_nothing_heavy(words):
    code = f"import sys; sys.argv = ['fedprune', *{list(words)!r}]\nfrom fedprune.cli.main import main\n"
    code += "try:\n    main()\nexcept SystemExit:\n    pass\n"
    code += "heavy = {'torch', 'timm', 'flwr', 'sklearn', 'hydra', 'pandas', 'matplotlib'} & set(sys.modules)\n"
    code += "print('HEAVY', sorted(heavy))"
    start = time.process_time()
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.rstrip().endswith("HEAVY []"), answer.stdout + answer.stderr
    assert time.process_time() - start < 1


def test_every_kind_lists_names_with_a_sentence(capsys):
    for kind in ("data", "methods", "recovery", "tokens", "selectors", "mechanisms", "attacks", "engines"):
        assert main(["list", kind]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines
        for line in lines:
            name, sentence = line.split(maxsplit=1)
            assert name.isidentifier()
            assert not sentence[0].islower()
            assert sentence.endswith(".")


def test_an_error_is_one_sentence_and_no_traceback(capsys):
    assert main(["run", "method=nothing"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fedprune: There is no method named 'nothing'")
    assert error.count("\n") == 1


def test_several_runs_need_m(capsys):
    assert main(["run", "seed=0,1"]) == 2
    assert "Add -m" in capsys.readouterr().err


def test_an_unknown_command_is_refused():
    answer = fedprune("prune")
    assert answer.returncode == 2
    assert "invalid choice" in answer.stderr
