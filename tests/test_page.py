"""The page in a real browser, from disk: charts draw, switches switch, tables sort, no host is asked for anything."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import BROWSER, DRIVER, chromium
from reporting import KINDS, write_run
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from results.report import report

pytestmark = pytest.mark.skipif(
    not (BROWSER.exists() and DRIVER.exists()),
    reason="no chromium and chromedriver here: apt-get install chromium-driver",
)
LINES = ".js-plotly-plot .scatterlayer .trace"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    run = write_run(root, tasks=["digits-lenet", "digits-mlp"], answers=["labels", "probs"])
    (root / "cells/digits-mlp.dfme.500-probs.s1/done.json").unlink()
    return report.write(run).page


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator[Chrome]:
    with chromium() as driver:
        yield open_page(driver, page)


def open_page(driver: Chrome, page: Path) -> Chrome:
    """The page, once the first chart and its tables stand."""
    driver.get(page.as_uri())
    WebDriverWait(driver, 20).until(lambda _: driver.find_elements(By.CSS_SELECTOR, "details[open] table.dataTable"))
    return driver


def press(driver: Chrome, label: str) -> None:
    buttons = driver.find_elements(By.CSS_SELECTOR, ".updatemenu-button")
    next(button for button in buttons if button.text == label).click()


def first_chart(driver: Chrome, what: str) -> object:
    """Of the first chart: `line` is that of IDEAL, `teacher` the last."""
    return driver.execute_script(  # type: ignore[no-untyped-call]
        "const {data, layout} = document.querySelector('.js-plotly-plot');"
        f"const line = data.find((trace) => trace.name === 'ideal-once'), teacher = data.at(-1); return {what}"
    )


def column(driver: Chrome, index: int) -> list[str]:
    cells = driver.find_elements(By.CSS_SELECTOR, f"table.dataTable tbody td:nth-child({index})")
    return [cell.text for cell in cells[: len(KINDS)]]


def test_only_the_open_chart_is_drawn_and_it_has_its_lines(browser: Chrome) -> None:
    assert len(browser.find_elements(By.CSS_SELECTOR, ".js-plotly-plot")) == 1
    lines = browser.find_elements(By.CSS_SELECTOR, f"{LINES} path.js-line")
    assert len([line for line in lines if line.get_attribute("d")]) >= len(KINDS)
    legend = [text.text for text in browser.find_elements(By.CSS_SELECTOR, ".legendtext")]
    assert legend == ["ideal-once", "dfme", "noise-uniform", "real (not data-free)", "teacher"]


def test_a_chart_is_drawn_when_its_part_is_opened(browser: Chrome) -> None:
    second = browser.find_elements(By.CSS_SELECTOR, "details")[1]
    assert not second.find_elements(By.CSS_SELECTOR, "svg")
    second.find_element(By.TAG_NAME, "summary").click()
    WebDriverWait(browser, 20).until(lambda _: second.find_elements(By.CSS_SELECTOR, ".scatterlayer .trace"))


def test_switches_change_the_measure_and_the_scale(browser: Chrome) -> None:
    accuracy = first_chart(browser, "line.y")
    press(browser, "agreement")
    agreement = first_chart(browser, "line.y")
    assert [round(y + 0.01, 3) for y in agreement] == pytest.approx([round(y, 3) for y in accuracy], abs=2e-3)  # type: ignore[attr-defined]
    assert first_chart(browser, "teacher.visible") is False  # the teacher has no agreement
    press(browser, "accuracy")
    assert first_chart(browser, "line.y") == accuracy
    press(browser, "optimistic")
    assert first_chart(browser, "line.y") == accuracy  # one point a run, which is the best of one
    dfme = "data.find((trace) => trace.name === 'dfme')"
    assert first_chart(browser, f"{dfme}.y") == [None] * 3  # measured once a run
    press(browser, "accuracy")
    assert None not in first_chart(browser, f"{dfme}.y")  # type: ignore[operator]
    assert first_chart(browser, "layout.xaxis.type") == "log"
    press(browser, "linear queries")
    assert first_chart(browser, "layout.xaxis.type") == "linear"


def test_hovering_tells_method_mean_spread_n_and_queries(browser: Chrome) -> None:
    browser.execute_script(  # type: ignore[no-untyped-call]
        "const chart = document.querySelector('.js-plotly-plot');"
        "const curveNumber = chart.data.findIndex((trace) => trace.name === 'ideal-once');"
        "Plotly.Fx.hover(chart, [{curveNumber, pointNumber: 1}])"
    )
    told = browser.find_element(By.CSS_SELECTOR, ".hoverlayer").text
    assert [part for part in ("ideal-once", " % ± ", "n = 3", "500 queries", "480 spent") if part not in told] == []


def test_a_table_sorts_by_its_numbers_and_not_by_their_letters(browser: Chrome) -> None:
    before = column(browser, 3)
    header = browser.find_elements(By.CSS_SELECTOR, "table.dataTable thead th")[2]
    header.click()
    WebDriverWait(browser, 20).until(lambda _: column(browser, 3) != before)
    after = column(browser, 3)
    numbers = [float(text.partition(" ")[0]) for text in after]
    assert numbers == sorted(numbers)
    assert after != before
    assert sorted(after) == sorted(before)


def test_the_word_partial_leads_to_what_is_lacking(browser: Chrome) -> None:
    browser.find_element(By.PARTIAL_LINK_TEXT, "which").click()
    lacking = browser.find_element(By.ID, "runs-without-a-result")
    WebDriverWait(browser, 5).until(lambda _: lacking.is_displayed())
    assert "dfme" in lacking.text


def test_nothing_is_asked_of_any_host_and_nothing_goes_wrong(browser: Chrome) -> None:
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]  # type: ignore[no-untyped-call]
    asked = [
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]
    assert len([url for url in asked if url.startswith("file:")]) == 4  # the page, two scripts and a style
    assert [url for url in asked if not url.startswith(("file:", "blob:", "data:", "chrome:"))] == []
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_nothing_is_wider_than_the_screen_and_ink_stands_out_from_paper(page: Path, dark: bool) -> None:
    with chromium(width=390, height=844, dark=dark) as driver:
        open_page(driver, page)
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 390  # type: ignore[no-untyped-call]
        ink, paper, chart, table = driver.execute_script(  # type: ignore[no-untyped-call]
            "const style = (name) => getComputedStyle(document.querySelector(name));"
            "return [style('body').color, style('body').backgroundColor, style('.legendtext').fill,"
            " style('div.dt-container').backgroundColor]"
        )
    assert (brightness(ink) > 200, brightness(paper) < 50) == (dark, dark)
    assert (chart, table) == (ink, paper)


def brightness(colour: str) -> float:
    """Mean of red, green and blue of a colour such as rgb(1, 2, 3)."""
    return sum(map(int, colour[4:-1].split(","))) / 3


@pytest.mark.slow
def test_the_page_of_ten_thousand_cells_opens_in_three_seconds(tmp_path: Path) -> None:
    kinds = {**KINDS, **{f"method {i}": "ideal" for i in range(6)}}
    tasks = [f"{data}-net{i}" for data in ("mnist", "cifar10") for i in range(10)]
    budgets = (250, 500, 1000, 2500, 5000)
    run = write_run(tmp_path, kinds=kinds, tasks=tasks, answers=["labels", "probs"], seeds=5, budgets=budgets)
    written = report.write(run)
    with chromium() as driver:
        started = time.monotonic()
        open_page(driver, written.page)
        assert time.monotonic() - started < 3
        assert driver.find_elements(By.CSS_SELECTOR, LINES)
