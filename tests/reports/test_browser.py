"""The page in a real headless Chromium: charts drawn, tabs, filters and themes work, no errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, browser, needs_browser
from run_folders import call, distilled

from diswot.reports.report import report

pytestmark = [pytest.mark.slow, needs_browser]

HOSTILE = "</script><script>window.hit=1</script>\"'<img src=x onerror=window.hit=2><b>x</b>"
TABS = ["search", "networks", "candidates", "training", "rank", "run"]
DRAWN = """
    const seen = [...document.querySelectorAll('.chart')].filter(c => c.offsetParent);
    return seen.length > 0 && seen.every(c => c.querySelector('.main-svg .plot, .main-svg .xy'))
        && seen.every(c => c.getBoundingClientRect().width > 200) && seen.length
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a search, trainings and a rank study in one folder, with names that would do harm."""
    place = tmp_path_factory.mktemp("browser")
    folder = distilled(place / "run")
    table = place / "table.csv"
    rows = [f"1,1,{c},{50 + c}" for c in (1, 3, 5, 7)]
    table.write_text("\n".join(["blocks1,blocks2,blocks3,distilled_acc", *rows]))
    call(f"rank --table {table} --teacher resnet20 --data digits --image-size 8 --proxies params "
         "--batch-size 4 --resamples 20 --quiet --json", "--out", folder / "rank")  # fmt: skip
    shutil.copytree(folder / "alone", folder / "<img src=x onerror=window.hit=3>")
    for name in ("found.json", "study.journal", "distilled/trained.json", "run.json"):
        inner = json.dumps(HOSTILE)[1:-1]
        path = folder / name
        path.write_text(path.read_text().replace('"resnet20"', f'"resnet20{inner}"'))
    harmless = report(folder, place / "page.html")
    for name in ("study.journal", "run.json", "found.json"):
        path = folder / name
        path.write_text(path.read_text().replace(f'"resnet20{inner}"', '"resnet20"'))
    text = report(folder, place / "clean.html").read_text()
    assert "data-chart" in text
    return harmless


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as session:
        yield session


def show(chromium: Browser, tab: str) -> None:
    chromium.run(f"document.getElementById('tab-{tab}').click()")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [(1280, 900), (390, 844)])
def test_every_view_is_drawn_without_an_error(
    chromium: Browser, page: Path, size: tuple[int, int], dark: bool
) -> None:
    chromium.open(page.with_name("clean.html"), dark=dark, size=size)
    tabs = "return [...document.querySelectorAll('nav [role=tab]')].map(t => t.id.slice(4))"
    assert chromium.run(tabs) == TABS
    charts = {"search": 3, "networks": 2, "training": 2, "rank": 2}
    screens = {}
    for tab in TABS:
        show(chromium, tab)
        views = "return [...document.querySelectorAll('.view')].filter(v => !v.hidden).map(v=>v.id)"
        assert chromium.run(views) == [tab]
        if tab in charts:
            assert chromium.until(DRAWN) == charts[tab]
        assert chromium.run("return document.documentElement.scrollWidth") <= size[0]
        screens[tab] = chromium.run("return document.documentElement.scrollHeight") / size[1]
    assert max(screens.values()) <= 3, screens
    assert chromium.log() == []


def test_light_and_dark_by_system_and_by_hand(chromium: Browser, page: Path) -> None:
    back = "return getComputedStyle(document.body).backgroundColor"
    ink = "return getComputedStyle(document.querySelector('.chart .xtick text')).fill"
    colours = {}
    for dark in (False, True):
        chromium.open(page.with_name("clean.html"), dark=dark)
        chromium.until(DRAWN)
        colours[dark] = chromium.run(back), chromium.run(ink)
    assert colours[False][0] != colours[True][0] and colours[False][1] != colours[True][1]
    chromium.run("document.getElementById('theme').click()")
    chromium.until(f"{back} === '{colours[False][0]}'")
    chromium.until(f"{ink} === '{colours[False][1]}'")


def test_the_table_is_sorted_and_filtered(chromium: Browser, page: Path) -> None:
    chromium.open(page.with_name("clean.html"))
    show(chromium, "candidates")
    column = """return [...document.querySelectorAll('#best tbody tr')].filter(r => !r.hidden)
        .map(r => +r.cells[arguments[0]].dataset.value)"""
    params = chromium.run(column, 2)
    assert len(params) > 2 and params == sorted(params, reverse=True)  # by score, which is params
    head = "document.querySelectorAll('#best th button')[2].click()"
    chromium.run(head)
    chromium.run(head)
    assert chromium.run(column, 2) == sorted(params)
    type_ = "const f = document.getElementById('filter'); f.value = arguments[0];"
    chromium.run(type_ + "f.dispatchEvent(new Event('input'))", "blocks1=7")
    left = chromium.run("return document.getElementById('left').textContent")
    shown = chromium.run(column, 2)
    assert 0 < len(shown) < len(params) and left == f"{len(shown)} shown"
    chromium.run(type_ + "f.dispatchEvent(new Event('input'))", "nothing like it")
    assert chromium.run(column, 2) == []


def test_a_link_leads_to_the_parameters(chromium: Browser, page: Path) -> None:
    chromium.open(page.with_name("clean.html"))
    chromium.run("document.querySelector('#answer a').click()")
    found = json.loads((page.parent / "run" / "found.json").read_text())["best"]
    place = f"document.getElementById('trial-{found['trial']}')"
    chromium.until(f"return {place}.open && {place}.offsetParent !== null")
    shown = chromium.run(f"return {place}.querySelector('pre').textContent")
    assert json.loads(shown) == found["params"]


def test_a_score_of_the_rank_study_is_chosen(chromium: Browser, page: Path) -> None:
    chromium.open(page.with_name("clean.html"))
    show(chromium, "rank")
    chromium.until(DRAWN)
    chromium.run("""const s = document.querySelector('select[data-scatter]');
        s.value = 'scatter-0-depth'; s.dispatchEvent(new Event('change'))""")
    title = "return document.querySelector('#scatter-0 .xtitle').textContent"
    chromium.until(f"{title} === 'depth'")


def test_hostile_names_do_nothing(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    for tab in TABS:
        show(chromium, tab)
    chromium.until("return document.readyState === 'complete'")
    assert chromium.run("return window.hit") is None
    assert chromium.run("return document.querySelectorAll('img[src=x], .chart b').length") == 0
    assert HOSTILE.split("<img")[0] in chromium.run("return document.body.textContent")
    assert chromium.log() == []


@pytest.mark.parametrize("size", [(1280, 900), (390, 844)])
def test_a_comparison_is_drawn_without_an_error(
    chromium: Browser, page: Path, size: tuple[int, int]
) -> None:
    place = page.with_name("comparison.html")
    call("compare --quiet --json", page.parent / "run", "--out", place)
    chromium.open(place, size=size)
    assert chromium.until(DRAWN) == 1
    assert chromium.run("return document.documentElement.scrollWidth") <= size[0]
    assert chromium.log() == []


def test_nothing_is_loaded(chromium: Browser, page: Path) -> None:
    chromium.open(page.with_name("clean.html"))
    for tab in TABS:
        show(chromium, tab)
    loaded = "return performance.getEntriesByType('resource').map(e => e.name)"
    assert [name for name in chromium.run(loaded) if not name.startswith("data:")] == []
