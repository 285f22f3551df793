"""The commands for sweeps, tables and figures as a user types them."""

import re

import pytest

from fedprune.cli.main import main
from fedprune.experiment.provenance import FILE
from fedprune.experiment.run import execute
from fedprune.protocol.observer import Observer
from fedprune.study.plan import plan_of


@pytest.fixture
def sweep_file(tmp_path):
    file = tmp_path / "two.yaml"
    file.write_text(f"settings: {{runs: '{tmp_path / 'runs'}'}}\naxes:\n  method: [fedprune, random]\n  seed: [0, 1]\n")
    return str(file)


def test_a_dry_run_shows_every_cell_and_runs_none(sweep_file, tmp_path, capsys):
    for words in (["run", "-m", sweep_file, "--dry-run"], ["table", sweep_file, "--status"]):
        assert main(words) == 0
        shown = capsys.readouterr().out
        assert "4 cells: 4 missing" in shown
        assert "no cell is done yet; by its passes of images alone about" in shown
        assert shown.count("missing") == 5
    assert not (tmp_path / "runs").exists()


def test_the_status_shows_what_the_settings_leave(sweep_file, capsys):
    assert main(["run", "-m", sweep_file, "seed=3", "--status"]) == 0
    assert "2 cells: 2 missing" in capsys.readouterr().out
    assert main(["run", "-m", sweep_file, "--seeds", "3", "4", "5", "--smoke", "--status", "method=nvit"]) == 0
    assert "3 cells: 3 missing" in capsys.readouterr().out


def test_a_table_of_runs_that_are_not_there_says_so_and_fails(sweep_file, capsys):
    assert main(["table", sweep_file]) == 1
    shown = capsys.readouterr().out
    assert shown.count("- (0/2)") == 14
    assert "14 of 14 cells are not complete" in shown
    assert main(["table", sweep_file, "--allow-missing"]) == 0


def test_tables_and_figures_are_listed_with_their_titles(capsys):
    assert main(["list", "tables"]) == 0
    tables = capsys.readouterr().out
    assert "nuwa/table3" in tables
    assert "nuwa/figure8" not in tables
    assert main(["list", "figures"]) == 0
    assert "nuwa/figure8" in capsys.readouterr().out


def test_a_wrong_name_is_a_sentence(capsys):
    assert main(["table", "nuwa/table99"]) == 2
    assert "nuwa/table99" in capsys.readouterr().err
    assert main(["figure", "nuwa/figure99"]) == 2
    assert "There are:" in capsys.readouterr().err


def test_a_paper_table_at_its_full_scale_is_planned_without_a_gpu(capsys):
    assert main(["table", "nuwa/table6", "--scale", "paper", "--seeds", "0", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "4 cells" in shown
    assert "about" in shown[shown.index("estimated time left") :]


def test_settings_may_stand_behind_an_option(tmp_path, capsys):
    words = ["table", "nuwa/table6", "--seeds", "0", "--dry-run", f"runs={tmp_path}", "proxy_size=32"]
    assert main(words) == 0
    assert "4 missing" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["digest", "a", "b"])
    assert "unrecognized arguments: b" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "methods"], "methods"),
        (["run", "--status"], "--status is for many runs. Add -m."),
        (["run", "--allow-missing"], "--allow-missing is for many runs. Add -m."),
        (["run", "hydra/launcher=joblib"], "is Hydra's own and changes no run. Leave it out, or add -m"),
        (["run", "-m", "--csv", "x.csv", "seed=0"], "--csv shows a file's numbers"),
        (["run", "-m", "nuwa/figure8"], "drawn from inside the models"),
        (["run", "-m", "seed=0", "--metric", "acuracy"], "There is no metric 'acuracy'"),
        (["run", "-m", "tap/proxy", "--metric", "upload"], "--metric is for sweeps"),
        (["table", "seed=0", "--force"], "--force says how to run, but nothing is run here"),
        (["table", "seed=0", "--workers", "2"], "--workers says how to run"),
        (["table", "seed=0", "hydra/launcher=joblib"], "says how to run"),
        (["table", "seed=0", "--csv", "/no/such.csv"], "Cannot read /no/such.csv"),
        (["table", "seed=0", "--plan", "--run"], "--plan runs and writes nothing. Leave --run out."),
        (["figure", "tap/proxy", "--run"], "is a table"),
        (["figure", "nuwa/figure8", "--seeds", "0", "1"], "Give each setting one value"),
    ],
)
def test_what_would_have_no_effect_is_refused_in_a_sentence(words, sentence, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_many_runs_are_run_measured_written_and_shown_again(small, tmp_path, capsys):
    words = [*small, "oracle=false", "recovery=none", "method=random", "seed=0,1"]
    metrics = ["--metric", "edge_accuracy", "--metric", "speed:gain", "--metric", "device:no_such_note"]
    results = tmp_path / "results"
    assert main(["run", "-m", *words, *metrics[:4], "--workers", "2", "--write", str(results)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("done: glyphs-random-seed") == 2
    assert "2 cells: 2 done" in shown
    (tidy,) = (path for path in results.glob("sweep/glyphs/*.csv") if ".summary" not in path.name)
    table = shown[shown.index("### sweep/") : shown.index("written: ")]
    assert table == tidy.with_suffix(".md").read_text()
    assert main(["table", *words, *metrics[:4], "--csv", str(tidy)]) == 0
    assert capsys.readouterr().out == table

    assert main(["run", "-m", *words, *metrics[:4], "--format", "csv"]) == 0
    shown = capsys.readouterr().out
    assert "done: " not in shown, "finished runs were run again"
    assert ",speed:gain," in shown
    assert main(["table", *words, *metrics]) == 2
    assert "column 'no_such_note'" in capsys.readouterr().err
    assert main(["table", *words[:-1], "seed=0,1,2", *metrics]) == 1
    assert "- (0/3)" in capsys.readouterr().out, "while a run is missing, a column that none has yet is a dash"


def test_a_plan_of_committed_numbers_says_how_many_seeds_it_takes(capsys):
    assert main(["table", "tap/question", "scale=cifar", "--plan"]) == 0
    shown = capsys.readouterr().out
    assert "what tells 1 point apart" in shown
    assert re.search(r"^\| edge model \(%\) \| 12 \| .* \d+ / \d+ \(\d+\.\d h\)", shown, re.M)


def test_force_starts_changed_cells_afresh_and_no_others(small, tmp_path, capsys):
    words = ["run", "-m", *small, "oracle=false", "recovery=none", "method=random", "seed=0,1"]
    kept, changed = (execute(cell.config, Observer()).folder for cell in plan_of(words[2:]).cells)
    hashes = (changed / FILE).read_text()
    (changed / FILE).write_text(hashes.replace('"the version of fedprune": "', '"the version of fedprune": "0'))
    assert main([*words, "--status"]) == 0
    assert "2 cells: 1 done, 1 changed" in capsys.readouterr().out
    assert main([*words, "--force"]) == 0
    assert [cell.folder.name for cell in plan_of(words[2:]).cells] == [kept.name, f"{changed.name}.2"]
    shown = capsys.readouterr().out
    assert "run 1 of 1" in shown
    assert "2 cells: 2 done" in shown
