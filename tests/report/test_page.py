"""The report page: everything in one file, true to the record, and quiet in a browser."""

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fedprune.core.discovery import describe
from fedprune.experiment.compose import compose
from fedprune.experiment.record import Record
from fedprune.experiment.run import execute
from fedprune.protocol.observer import Observer
from fedprune.report.page import PageOptions, write_run_page, write_sweep_page
from fedprune.study.measure_attack import AttackReports
from fedprune.study.plan import plan_of
from tests.situations import saw

SETTINGS = [
    "data.train_per_class=12",
    "data.test_per_class=4",
    "partition.devices=3",
    "features.dimensions=8",
    "features.anchors=5",
    "mixture.components=2",
    "proxy_size=24",
    "recovery=none",
]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=4000",
]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> list[str]:
    return [*SETTINGS, f"runs={tmp_path_factory.mktemp('runs')}", f"cache={shared_cache}"]


@pytest.fixture(scope="module")
def record(settings: list[str]) -> Record:
    return execute(compose(settings), Observer())


@pytest.fixture(scope="module")
def page(record: Record, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_run_page(record, path, PageOptions(devices=2))
    return path


def test_the_page_needs_nothing_but_itself(page):
    text = page.read_text(encoding="utf-8")
    loads = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert loads
    assert {load[:1] if load.startswith("#") else load.split(",")[0].split(";")[0] for load in loads} <= {
        "#",
        "data:",
        "data:image/png",
    }
    assert "<script" not in text
    assert "@import" not in text


def test_the_page_says_what_the_record_says(page, record):
    text = html.unescape(page.read_text(encoding="utf-8"))
    assert record.digest in text
    assert f"{100 * record.values['summary']['edge_mean']:.1f} %" in text
    assert text.count('class="card"') == 3
    assert text.count('class="blocks"') == 3
    assert text.count('alt="proxy images"') == text.count('alt="private images"') == 2
    assert text.count('alt="public images nearest to the means"') == 2
    assert '"proxy_size": 24' in text


def test_clock_and_attacks_are_shown_where_a_run_has_them(settings, page, tmp_path):
    plain = page.read_text(encoding="utf-8")
    assert "have not been attacked" in plain
    assert "Virtual clock" not in plain
    timed = execute(compose([*settings, "clock=virtual", "mechanism=anchored", "mechanism.epsilon=3"]), Observer())
    found = AttackReports("membership").measure(timed.folder, timed.config)
    write_run_page(timed, tmp_path / "page.html", PageOptions(pictures=False))
    text = html.unescape((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "Virtual clock" in text
    assert "Epsilon 3 at delta 1e-05" in text
    assert f"{found['auc']:.3f} (" in text
    assert 'alt="ROC of membership"' in text


def test_private_images_can_be_left_out(record, tmp_path):
    write_run_page(record, tmp_path / "page.html", PageOptions(private_images=False, devices=1))
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'alt="private images"' not in text
    assert 'alt="proxy images"' in text


def test_numbers_alone_open_neither_data_nor_models(record, tmp_path, monkeypatch):
    monkeypatch.setattr("fedprune.report.page._open_scene", lambda record: pytest.fail("the scene was opened"))
    write_run_page(record, tmp_path / "page.html", PageOptions(pictures=False))
    assert record.digest in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_sweep_page_shows_missing_cells(settings, record, tmp_path):
    plan = plan_of([*settings, "seed=0,1"])
    write_sweep_page(plan, tmp_path / "sweep.html")
    text = (tmp_path / "sweep.html").read_text(encoding="utf-8")
    assert "1 / 2" in text
    assert "- (1/2)" in text
    assert "missing" in text


@pytest.mark.skipif(BROWSER is None, reason="There is no Chromium here: apt-get install chromium.")
def test_a_browser_opens_the_page_without_a_complaint(page, tmp_path):
    assert BROWSER is not None
    shot = tmp_path / "page.png"
    done = subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}", f"file://{page}"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert shot.stat().st_size > 20_000
    assert "CONSOLE" not in done.stderr


REDUCERS = [name for name in describe("tokens") if name != "none"]


@pytest.mark.parametrize("reducer", REDUCERS)
def test_a_run_with_any_token_reducer_has_a_page(reducer: str, settings: list[str], tmp_path: Path) -> None:
    own = [f"tokens={reducer}", "tokens.training.steps=1", "tokens.training.batch_size=4"]
    budget = ["budgets.limit=macs", "budgets.removed=[0.5]", "splitting.ratios=[0.7]", "splitting.judges=8"]
    small = ["partition.devices=2", "partition.max_train=20", "partition.max_test=8", "proxy_size=8", "oracle=false"]
    record = execute(compose([*settings, *own, *budget, *small]), Observer())
    assert set(record.devices["status"]) == {"ok"}
    write_run_page(record, tmp_path / "report.html", PageOptions(devices=1))
    assert 'alt="attention rollout"' in (tmp_path / "report.html").read_text(encoding="utf-8")
    if reducer == REDUCERS[-1]:
        saw("`fedprune report` of a run with any token reducer", "the page is drawn")
