"""The report page: everything in one file, true to the record, and quiet in a browser."""

import html
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedprune.core.discovery import describe
from fedprune.experiment.compose import compose
from fedprune.experiment.differences import command_of
from fedprune.experiment.record import Record
from fedprune.experiment.run import execute
from fedprune.protocol.observer import Observer
from fedprune.report.cards import bars_of
from fedprune.report.proxy_sheets import effective_text, images_text, rests_on_few
from fedprune.report.run_page import PageOptions, write_run_page
from fedprune.report.sweep_page import sweep_page_path, write_sweep_page
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


class Elements(HTMLParser):
    """All elements of a page: names with attributes, and whether every one that was opened was closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, {name: value or "" for name, value in attributes}))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.found if name == tag]


def elements(page: Path) -> Elements:
    return Elements(page.read_text(encoding="utf-8"))


def test_the_page_needs_nothing_but_itself(page):
    """The CSV beside it is a link, which loads nothing until somebody asks."""
    text, parsed = page.read_text(encoding="utf-8"), elements(page)
    assert parsed.open == []
    loads = [
        attributes["src"]
        for tag in ("img", "script", "iframe")
        for attributes in parsed.all(tag)
        if "src" in attributes
    ]
    loads += [attributes["href"] for attributes in parsed.all("link")]
    assert loads
    assert all(load.startswith("data:") for load in loads)
    assert {link["href"] for link in parsed.all("a") if not link["href"].startswith("#")} == {"report.csv"}
    assert "default-src 'none'" in text
    assert not re.search(r"@import|url\((?!#)", text)
    assert len(text) < 3_000_000


def test_every_picture_says_what_it_shows(page, record):
    parsed = elements(page)
    texts = [image["alt"] for image in parsed.all("img")]
    drawings = [svg["aria-label"] for svg in parsed.all("svg")]
    assert all(texts)
    assert all(svg["role"] == "img" for svg in parsed.all("svg"))
    assert sum(text.startswith("proxy set: 16 of 24 images, of the classes ") for text in texts) == 2
    assert sum(text.startswith("private: ") for text in texts) == 2
    assert sum(text.startswith("nearest to the reported means: ") for text in texts) == 2
    assert drawings[0].startswith("Accuracy lost against parameters removed for 3 devices.")
    classes = record.devices["classes"].iloc[0]
    assert f"Private images of {classes} of 160 classes, " in drawings[1]
    assert "Kept of attention / MLP in each block" in drawings[2]


def test_the_table_of_devices_can_be_sorted_and_is_one_without_a_script(page, record):
    text, parsed = page.read_text(encoding="utf-8"), elements(page)
    assert any("sortable" in table.get("class", "") for table in parsed.all("table"))
    assert [head.get("aria-sort") for head in parsed.all("th") if "aria-sort" in head] == ["ascending"]
    body = re.search(r'<table class="sortable">.*?<tbody>(.*?)</tbody>', text, re.S)
    assert body is not None
    assert re.findall(r'<tr><th scope="row">(\d+)</th>', body[1]) == ["0", "1", "2"]
    assert len(pd.read_csv(page.with_suffix(".csv"))) == 3


def test_the_page_is_dark_where_the_reader_wants_it(page):
    text = page.read_text(encoding="utf-8")
    assert "@media (prefers-color-scheme: dark)" in text
    colours = [dict(re.findall(r"--(\w+): (#\w{6});", block)) for block in re.findall(r":root \{(.*?)\}", text)]
    assert len(colours) == 2
    for scheme in colours:
        for ink in ("ink", "soft", "link", "bad"):
            for ground in ("page", "tint"):
                assert contrast(scheme[ink], scheme[ground]) >= 4.5  # WCAG 2.2, level AA
    figure = re.search(r"<svg role.*?</svg>", text, re.S)
    assert figure is not None
    assert "currentColor" in figure[0]
    assert "#000000" not in figure[0]


def contrast(first: str, second: str) -> float:
    """Return WCAG's contrast ratio of two colours."""
    light, dark = sorted(map(luminance, (first, second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_the_page_says_what_the_record_says(page, record):
    text = html.unescape(page.read_text(encoding="utf-8"))
    assert record.digest in text
    assert f"{100 * record.values['summary']['edge_mean']:.1f} %" in text
    assert text.count('class="card"') == 3
    assert text.count('class="blocks"') == 3
    assert '"proxy_size": 24' in text
    assert command_of(record.config) in text
    assert re.search(r"Page written \d{4}-\d\d-\d\d \d\d:\d\d UTC by fedprune ", text)
    assert "least_squares" not in text.split("Resolved configuration")[0]


def test_bars_are_differences_from_the_base_with_the_sub_classifier_on_one_scale():
    counts = {
        "edge_correct": [6, 9],
        "oracle_correct": [8, 10],
        "subclassifier_correct": [8, 8],
        "base_correct": [1, 1],
    }
    first, second = bars_of(pd.DataFrame({"test_images": [10, 10], **counts}))
    assert [bar.label for bar in first] == ["base + sub-classifier", "edge model", "oracle proxy set"]
    assert [bar.points for bar in first] == pytest.approx([0, -20, 0])
    assert [(bar.left, bar.width) for bar in (first[1], second[1], second[2])] == [
        pytest.approx(place) for place in ((0, 50), (50, 25), (50, 50))
    ]


def test_a_proxy_set_that_rests_on_few_images_is_said_in_words(record):
    assert (
        effective_text(4.2, 128)
        == "effective sample size 4.2 of 128: it rests on very few images like the device's own"
    )
    assert effective_text(90, 128) == "effective sample size 90.0 of 128"
    devices = record.devices.assign(proxy_effective_sample_size=[2.0, 20.0, 1.0])
    assert rests_on_few(replace(record, devices=devices)).startswith("For 2 of 3 devices hardly any public image")
    assert rests_on_few(replace(record, devices=devices.assign(proxy_effective_sample_size=24.0))) == ""
    assert images_text("proxy set", np.array([1, 1, 0]), ["a", "b"], 9) == (
        "proxy set: 3 of 9 images, of the classes b (2), a (1)"
    )


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
    assert f'alt="ROC of membership: AUC {found["auc"]:.3f} (' in text


def test_private_images_can_be_left_out(record, tmp_path):
    write_run_page(record, tmp_path / "page.html", PageOptions(private_images=False, devices=1))
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'alt="private: ' not in text
    assert 'alt="proxy set: ' in text


def test_numbers_alone_open_neither_data_nor_models(record, tmp_path, monkeypatch):
    monkeypatch.setattr("fedprune.report.run_page._open_scene", lambda record: pytest.fail("the scene was opened"))
    write_run_page(record, tmp_path / "page.html", PageOptions(pictures=False))
    assert record.digest in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_sweep_page_shows_missing_cells(settings, record, tmp_path):
    words = [*settings, "seed=0,1"]
    plan = plan_of(words)
    path = sweep_page_path(plan, words)
    assert path.parent == record.folder.parent
    write_sweep_page(plan, path, words)
    text = path.read_text(encoding="utf-8")
    assert "1 / 2" in text
    assert "- (1/2)" in text
    assert "missing" in text
    assert f'<h1 id="summary">{html.escape(" ".join(words))}</h1>' in text
    assert "fedprune run -m data.train_per_class=12" in text
    (link,) = [link["href"] for link in elements(path).all("a") if not link["href"].startswith("#")]
    assert "digest " + record.digest in (path.parent / link).read_text(encoding="utf-8")


def test_a_sweep_page_is_named_after_its_file_and_settings():
    words = ["methods", "seed=3,4"]
    assert sweep_page_path(plan_of(words), words) == Path("runs/methods-seed-3-4.html")
    words = ["methods", "runs=elsewhere"]
    assert re.fullmatch(r"elsewhere/methods-\w{6}\.html", str(sweep_page_path(plan_of(words), words)))


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
    assert 'alt="Three test images each of the devices ' in (tmp_path / "report.html").read_text(encoding="utf-8")
    if reducer == REDUCERS[-1]:
        saw("`fedprune report` of a run with any token reducer", "the page is drawn")
