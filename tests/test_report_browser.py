"""The page in a real headless Chromium: it draws, hovers, toggles, filters; nothing in it runs, nothing leaves it."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import report_runs

from harness.analysis.summarise import summarise_all
from harness.plugins import load_selectors
from harness.reporting import material_of
from harness.reports import problem_pages
from harness.reports.page import page
from harness.storage.runs import Run

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
DRIVER = shutil.which("chromedriver")

pytest.importorskip("selenium", reason="selenium is not installed; pip install 'ttc-harness[dev]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (BROWSER and DRIVER), reason="no Chromium with its driver here (apt: chromium chromium-driver)"
    ),
]

from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

WAIT_S = 120
"""How long a step may take on a machine that is busy otherwise."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1000,1400",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=str(DRIVER)))
    driver.set_script_timeout(WAIT_S)
    driver.set_page_load_timeout(WAIT_S)
    yield driver
    driver.quit()


def write_page(runs: list[Run], out: Path) -> Path:
    selectors = load_selectors(["coverage", "majority"])
    summaries = summarise_all(runs, selectors)
    out.mkdir()
    return page(summaries, out, material_of(summaries, runs, selectors))[0]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("runs")
    hostile = "<img src=x onerror='window.broken=1'>%{x}"
    return [
        report_runs.write_run(folder / "a", hostile=True, scored=True),
        report_runs.write_run(folder / "b", hostile, skill=0.4, step_s=0.04, hostile=True),
    ]


@pytest.fixture(scope="module")
def index(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(runs, tmp_path_factory.mktemp("page") / "out")


@pytest.fixture
def opened(chromium: webdriver.Chrome, index: Path) -> webdriver.Chrome:
    visit(chromium, index)
    WebDriverWait(chromium, WAIT_S).until(lambda driver: driver.find_elements(By.CSS_SELECTOR, ".chart[data-drawn]"))
    return chromium


def visit(driver: webdriver.Chrome, path: Path) -> None:
    for kind in ("browser", "performance"):
        driver.get_log(kind)
    driver.get(path.as_uri())


def until(driver: webdriver.Chrome, condition: Callable[[], Any]) -> Any:
    return WebDriverWait(driver, WAIT_S).until(lambda _: condition())


def one(driver: webdriver.Chrome | WebElement, selector: str) -> WebElement:
    return driver.find_element(By.CSS_SELECTOR, selector)


def shown(driver: webdriver.Chrome | WebElement, selector: str) -> list[WebElement]:
    return [element for element in driver.find_elements(By.CSS_SELECTOR, selector) if element.is_displayed()]


def complaints(driver: webdriver.Chrome) -> list[str]:
    return [entry["message"] for entry in driver.get_log("browser")]


def requests(driver: webdriver.Chrome) -> list[str]:
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


def test_it_loads_without_a_complaint_and_asks_for_nothing_else(opened: webdriver.Chrome, index: Path) -> None:
    for details in opened.find_elements(By.CSS_SELECTOR, "details"):
        opened.execute_script("arguments[0].open = true", details)
    assert complaints(opened) == []
    assert requests(opened) == [index.as_uri()]
    assert len(shown(opened, ".plot .scatterlayer .trace")) == 2 * 2 * 2


def test_hovering_tells_the_values(opened: webdriver.Chrome) -> None:
    points = opened.find_elements(By.CSS_SELECTOR, ".plot .scatterlayer .points path")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", points[0])
    ActionChains(opened).move_to_element(points[0]).perform()
    label = until(opened, lambda: shown(opened, ".hoverlayer .hovertext"))[0].text
    assert "95 % interval" in label
    assert "12 problems" in label


def test_hovering_over_a_hostile_name_shows_it_as_text(opened: webdriver.Chrome) -> None:
    boxes = opened.find_elements(By.CSS_SELECTOR, "input[name='arm-0']")
    boxes[0].click()
    point = until(opened, lambda: opened.find_elements(By.CSS_SELECTOR, ".plot .scatterlayer .points path"))[0]
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", point)
    ActionChains(opened).move_to_element(point).perform()
    label = until(opened, lambda: shown(opened, ".hoverlayer .hovertext"))[0].text
    assert "<img src=x onerror='window.broken=1'>%{x}" in label.replace("\n", "")
    assert opened.execute_script("return window.broken") is None


def test_series_toggle_by_mouse_and_by_keyboard(opened: webdriver.Chrome) -> None:
    def lines() -> int:
        return len(shown(opened, ".plot .scatterlayer .trace .points path"))

    before = lines()
    one(opened, "input[value='coverage']").click()
    until(opened, lambda: 0 < lines() < before)
    one(opened, "input[value='coverage']").send_keys(Keys.SPACE)
    until(opened, lambda: lines() == before)


def test_the_axis_switches(opened: webdriver.Chrome) -> None:
    assert one(opened, ".xtitle").text == "seconds per problem"
    one(opened, "input[value='k']").click()
    until(opened, lambda: one(opened, ".xtitle").text == "samples k")
    ticks = [tick.text for tick in opened.find_elements(By.CSS_SELECTOR, ".xtick text")]
    assert ticks == ["1", "2", "4", "8"]
    one(opened, "input[value='log']").click()
    until(opened, lambda: [t.text for t in opened.find_elements(By.CSS_SELECTOR, ".xtick text")] != ticks)


def choose(form: WebElement, place: int, value: str) -> None:
    option = form.find_elements(By.CSS_SELECTOR, "select")[place].find_element(
        By.CSS_SELECTOR, f"option[value='{value}']"
    )
    option.click()


def test_problems_are_filtered_and_opened(opened: webdriver.Chrome, runs: list[Run]) -> None:
    verdicts = [row for run in runs for row in run.verdicts()]
    ids = {row["problem_id"] for row in verdicts}
    solved = {row["problem_id"] for row in verdicts if row["verdict"] == "correct"}
    form = one(opened, "section[data-entries$='problem'] > form")
    opened.execute_script("arguments[0].scrollIntoView()", form)
    choose(form, 0, "none")
    names = [entry.text for entry in shown(opened, "li.problem .id")]
    assert set(names) == ids - solved
    assert one(form, ".told").text == f"{len(names)} of {len(ids)} shown"
    choose(form, 0, "")
    one(form, "input[type=search]").send_keys("sums/11")
    (entry,) = shown(opened, "li.problem")
    one(entry, "summary").send_keys(Keys.ENTER)
    until(opened, lambda: shown(entry, "li.sample"))
    section = one(entry, "section")
    rows = [row for row in runs[0].verdicts() if row["problem_id"] == "sums/11"]
    assert len(shown(section, "li.sample")) == len(rows)
    choose(one(section, "form"), 0, "wrong")
    until(opened, lambda: len(shown(section, "li.sample")) == sum(row["verdict"] == "wrong" for row in rows))


def test_hostile_text_is_text(opened: webdriver.Chrome, index: Path) -> None:
    entry = opened.find_elements(By.CSS_SELECTOR, "li.problem")[1]
    opened.execute_script("arguments[0].querySelectorAll('details').forEach((one) => { one.open = true; })", entry)
    words = until(opened, lambda: one(entry, "li.sample .quote").text)
    assert "<script>window.broken = true</script><img src=x onerror='window.broken = true'>" in words
    assert "\\x1b[31mred \\u202eevil" in words
    assert len(entry.find_elements(By.CSS_SELECTOR, "math mfrac")) > 4
    for tag in ("img", "script:not([type])", "a[href^='javascript']", "iframe", "[onerror]"):
        assert opened.find_elements(By.CSS_SELECTOR, f"main {tag}") == []
    assert opened.execute_script("return window.broken") is None
    assert complaints(opened) == []
    assert requests(opened) == [index.as_uri()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(chromium: webdriver.Chrome, scheme: str, tmp_path: Path) -> None:
    axe = pytest.importorskip("axe_core_python.base", reason="axe-core-python is not installed")
    few = [report_runs.write_run(tmp_path / name, name, problems=2, samples=3, scored=True) for name in ("a", "b")]
    emulate(chromium, scheme, 1000)
    visit(chromium, write_page(few, tmp_path / "out"))
    until(chromium, lambda: chromium.find_elements(By.CSS_SELECTOR, ".chart[data-drawn]"))
    opening = (
        "document.querySelectorAll('li.problem')[1].querySelectorAll('details').forEach((x) => { x.open = true; })"
    )
    chromium.execute_script(opening)
    chromium.execute_cdp_cmd("Runtime.evaluate", {"expression": axe.AXE_SCRIPT})
    found = chromium.execute_async_script(
        "const done = arguments[arguments.length - 1]; axe.run({resultTypes: ['violations']}).then(done)"
    )
    told = [(fault["impact"], fault["id"], fault["nodes"][0]["html"]) for fault in found["violations"]]
    assert [fault for fault in told if fault[0] in ("serious", "critical")] == []
    emulate(chromium, "light", 1000)


def emulate(driver: webdriver.Chrome, scheme: str, width: int) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    size = {"width": width, "height": 1400, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def test_it_fits_a_phone_and_turns_dark(chromium: webdriver.Chrome, index: Path) -> None:
    emulate(chromium, "dark", 390)
    visit(chromium, index)
    until(chromium, lambda: chromium.find_elements(By.CSS_SELECTOR, ".chart[data-drawn]"))
    assert chromium.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert chromium.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 27)"
    axis = chromium.execute_script("return getComputedStyle(document.querySelector('.xtitle')).fill")
    assert axis == "rgb(232, 232, 232)"
    emulate(chromium, "light", 1000)


def test_the_pages_of_a_large_run_are_linked_and_as_tame(
    chromium: webdriver.Chrome, runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(problem_pages, "FITS", 0)
    monkeypatch.setattr(problem_pages, "TEXTS", 3)
    whole = write_page(runs, tmp_path / "out")
    visit(chromium, whole)
    entry = until(chromium, lambda: chromium.find_elements(By.CSS_SELECTOR, "li.problem a"))[1]
    entry.send_keys(Keys.ENTER)
    until(chromium, lambda: chromium.current_url.endswith("problems/00002.html"))
    assert one(chromium, "h1").text == "sums/1"
    assert "The texts of 5 of 8 completions are left out here" in one(chromium, "section").text
    assert len(chromium.find_elements(By.CSS_SELECTOR, "li.sample")) == 16
    assert len(chromium.find_elements(By.CSS_SELECTOR, "li.sample details")) == 2 * 3
    choose(one(chromium, "section form"), 0, "correct")
    assert chromium.execute_script("return window.broken") is None
    assert complaints(chromium) == []
    one(chromium, "a[rel=next]").click()
    until(chromium, lambda: chromium.current_url.endswith("problems/00003.html"))
    assert {url.rsplit("/", 1)[1] for url in requests(chromium)} == {"index.html", "00002.html", "00003.html"}
