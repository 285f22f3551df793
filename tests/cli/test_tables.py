"""The commands for sweeps, tables and figures as a user types them."""

import pytest

from fedprune.cli.main import main


@pytest.fixture
def sweep_file(tmp_path):
    file = tmp_path / "two.yaml"
    file.write_text(f"settings: {{runs: '{tmp_path / 'runs'}'}}\naxes:\n  method: [fedprune, random]\n  seed: [0, 1]\n")
    return str(file)


def test_a_dry_run_shows_every_cell_and_runs_none(sweep_file, tmp_path, capsys):
    assert main(["sweep", sweep_file, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "4 cells: 4 missing" in shown
    assert "no cell is done yet; by its passes of images alone about" in shown
    assert shown.count("missing") == 5
    assert not (tmp_path / "runs").exists()


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
