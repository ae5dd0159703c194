"""A real Chromium opens the file: it asks for nothing, complains of nothing, and fits a phone.

DRIFTGATE_PICTURES: a folder for the picture of the page.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import Browser, needs_chromium
from support.drift_answers import Answers, without_reference
from test_report_page import HOSTILE, NOW, hostile

from gateway.report.render import render

pytestmark = needs_chromium

DARK_PAPER = "rgb(17, 22, 29)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser"), 1280, 1400) as started:
        yield started


@pytest.fixture
def pages(cancer_answers: Answers, orders_answers: Answers, many_answers: Answers, few_answers: Answers) -> Any:
    return {
        "cancer": cancer_answers, "orders": orders_answers, "many": many_answers, "few": few_answers,
        "none": without_reference(cancer_answers), "hostile": hostile(orders_answers, HOSTILE),
    }  # fmt: skip


def opened(browser: Browser, answers: Answers, folder: Path) -> str:
    file = folder / "report.html"
    file.write_text(render(answers.drift, answers.features, generated_at=NOW), encoding="utf-8")
    browser.open(file.as_uri())
    return file.as_uri()


@pytest.mark.parametrize("name", ["cancer", "orders", "many", "few", "none", "hostile"])
def test_it_asks_for_nothing_and_complains_of_nothing(
    browser: Browser, pages: dict[str, Answers], name: str, tmp_path: Path
) -> None:
    events = browser.listen("Network", "Log", "Runtime", "Audits")
    url = opened(browser, pages[name], tmp_path)
    assert browser.ask("document.readyState") == "complete"
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [address for address in asked if address != "data:,"] == [url]
    complaints = {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Audits.issueAdded"}
    assert [e for e in events if e["method"] in complaints] == []
    assert browser.ask("document.scripts.length") == 0


@pytest.mark.parametrize("name", ["cancer", "orders", "many", "none", "hostile"])
@pytest.mark.parametrize("width", [400, 800, 1280])
def test_no_window_is_scrolled_sideways(
    browser: Browser, pages: dict[str, Answers], name: str, width: int, tmp_path: Path
) -> None:
    browser.emulate(width, 900)
    opened(browser, pages[name], tmp_path)
    assert browser.ask("document.documentElement.scrollWidth") <= width
    outside = """[...document.querySelectorAll('h1, h2, h3, p, td, th, dd, dt, figure, .value, .bar, summary')]
        .filter(e => !e.closest('.scroll') && !e.closest('details') && e.getBoundingClientRect().right > innerWidth + 1)
        .map(e => e.outerHTML.slice(0, 80))"""
    assert browser.ask(outside) == []


def test_dark_and_light_are_the_readers_choice(browser: Browser, orders_answers: Answers, tmp_path: Path) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    browser.emulate(1280, 900, prefers_color_scheme="dark")
    opened(browser, orders_answers, tmp_path)
    assert browser.ask(paper) == DARK_PAPER
    browser.emulate(1280, 900, prefers_color_scheme="light")
    assert browser.ask(paper) == "rgb(255, 255, 255)"


CONTRAST = """(() => {
    const parse = c => c.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
    const paper = e => { for (; e; e = e.parentElement) {
        const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; }
        return [255, 255, 255]; };
    const worst = [...document.querySelectorAll('p, span, b, td, th, dt, dd, h1, h2, h3, li, summary, text, desc')]
        .filter(e => e.getClientRects().length && e.textContent.trim())
        .map(e => { const s = getComputedStyle(e), ink = e.closest('svg') ? s.fill : s.color;
            const [a, b] = [light(parse(ink)), light(paper(e))].sort((x, y) => y - x);
            return [(a + .05) / (b + .05), e.tagName + '.' + (e.getAttribute('class') || '') + ' ' + ink]; })
        .sort((x, y) => x[0] - y[0]);
    return worst[0];
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read_on_its_ground(
    browser: Browser, orders_answers: Answers, scheme: str, tmp_path: Path
) -> None:
    """4.5 to 1, as WCAG's level AA asks."""
    browser.emulate(1280, 900, prefers_color_scheme=scheme)
    opened(browser, orders_answers, tmp_path)
    contrast, where = browser.ask(CONTRAST)
    assert contrast >= 4.5, where


def test_texts_of_a_plot_do_not_touch(browser: Browser, pages: dict[str, Answers], tmp_path: Path) -> None:
    browser.emulate(1280, 900)
    for name in ("cancer", "orders"):
        opened(browser, pages[name], tmp_path)
        touching = browser.ask(
            """[...document.querySelectorAll('svg.plot')].flatMap(svg => {
                const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
                return boxes.flatMap(([a, p], i) => boxes.slice(i + 1).filter(([_, q]) =>
                    p.left < q.right && q.left < p.right && p.top + 3 < q.bottom && q.top + 3 < p.bottom)
                    .map(([b]) => a + ' / ' + b)); })"""
        )
        assert touching == []


def test_the_picture_of_the_page(browser: Browser, cancer_answers: Answers, tmp_path: Path) -> None:
    browser.emulate(1280, 1400, prefers_color_scheme="light")
    opened(browser, cancer_answers, tmp_path)
    picture = browser.picture()
    assert picture.startswith(b"\x89PNG")
    if folder := os.environ.get("DRIFTGATE_PICTURES"):
        (Path(folder) / "drift-report.png").write_bytes(picture)
