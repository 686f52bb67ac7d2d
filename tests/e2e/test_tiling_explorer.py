"""docs/tiling-explorer.html in a real headless browser, used as a person would."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bioimageio.spec.model import v0_5
from ruyaml import YAML
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from packager.audit.tiles import right_along
from packager.consumers import core, ilastik, jdll
from packager.consumers.placement import DeclaredAxis, Placement
from tests.packager.consumers.test_explorer_arithmetic import wrapped_axis
from zoo_models.geometry import TileGeometry, ValidUNetAxis

PAGE = Path(__file__).parents[2] / "docs" / "tiling-explorer.html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"),
    *("disable-background-networking", "disable-component-update", "window-size=1366,900"),
)


class Browser:
    """The page in a browser window."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, **settings: object) -> Browser:
        told = "&".join(f"{name}={value}" for name, value in settings.items())
        self.driver.get("about:blank")  # so that the same page with another link is loaded anew
        self.driver.get(f"{PAGE.as_uri()}#{told}")
        return self

    def run(self, script: str, *values: Any) -> Any:
        return self.driver.execute_script(script, *values)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def number(self, name: str) -> str:
        text = self.find(f"#n-{name} b").text
        return text.replace("\u2009", "").removesuffix(" px").removesuffix(" %")

    @property
    def outcome(self) -> str:
        return self.find("#verdict").get_attribute("data-outcome") or ""

    def type(self, field: str, text: str) -> None:
        element = self.find(f"#{field}")
        element.send_keys(Keys.CONTROL + "a")
        element.send_keys(text)

    def press(self, words: str) -> None:
        self.driver.find_element(By.XPATH, f"//button[text()='{words}']").click()

    def screen(self, width: int, *, dark: bool = False) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@pytest.fixture(scope="module")
def one_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no Chromium with its chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for option in (*QUIET, f"user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(f"--{option}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as started:
        yield Browser(started)


@pytest.fixture
def browser(one_browser: Browser) -> Iterator[Browser]:
    one_browser.screen(1366)
    yield one_browser
    # a fault in the page's script, or something that it wanted to load
    assert one_browser.driver.get_log("browser") == []


def placed(consumer: str, shape: tuple[int, int], axis: DeclaredAxis, tile: int) -> Placement:
    """What the page should draw, from the functions that the audit uses."""
    axes = [axis, axis]
    if consumer == "core":
        found = core.place(axes, shape, n=[(tile - axis.minimum) // (axis.step or 1)] * 2)
    elif consumer == "ilastik":
        found = ilastik.place(axes, shape)
    else:
        found = jdll.place(axes, shape)
    assert isinstance(found, Placement)
    return found


CASES: list[tuple[str, dict[str, int], tuple[int, int]]] = [
    ("core", {}, (832, 1043)),
    ("core", {"levels": 2, "tile": 200}, (403, 619)),
    ("core", {"halo": 44}, (640, 640)),
    ("ilastik", {"levels": 4}, (901, 1000)),
    ("ilastik", {"factor": 3, "levels": 2, "kernel": 5, "convolutions": 1}, (700, 801)),
    ("jdll", {}, (203, 219)),
    ("jdll", {"step": 0, "minimum": 256}, (500, 707)),
]


@pytest.mark.parametrize(("consumer", "settings", "shape"), CASES)
def test_the_page_shows_what_python_computes(
    browser: Browser, consumer: str, settings: dict[str, int], shape: tuple[int, int]
) -> None:
    browser.open(consumer=consumer, height=shape[0], width=shape[1], **settings)
    network = ValidUNetAxis(
        settings.get("kernel", 3),
        settings.get("convolutions", 2),
        settings.get("levels", 3),
        settings.get("factor", 2),
    )
    right = TileGeometry.from_network([network, network]).axes[0]
    values = (settings.get(n, getattr(right, n)) for n in ("minimum", "step", "halo"))
    axis = DeclaredAxis(*values)
    placement = placed(consumer, shape, axis, settings.get("tile", 512))
    rows, columns = (
        right_along(tiles, size, wrapped_axis(network), size)
        for tiles, size in zip(placement.axes, shape, strict=True)
    )
    wrong = ~(rows[:, None] & columns)

    shown = {
        name: browser.number(name) for name in ("period", "shrink", "halo", "smallest", "tiles")
    }
    assert shown == {
        "period": f"{network.period}",
        "shrink": f"{network.shrink}",
        "halo": f"{axis.halo}",
        "smallest": f"{axis.minimum}",
        "tiles": f"{len(placement)}",
    }
    assert browser.outcome == ("wrong" if wrong.any() else "exact")
    assert float(browser.number("wrong")) == pytest.approx(100 * wrong.mean(), rel=0.01)
    read = sum(tile.read.size for tile in placement) / math.prod(shape)
    assert float(browser.number("overhead").removesuffix(" ×")) == pytest.approx(read, rel=0.01)

    # and the drawing: random pixels, and those beside every border of the wrong area
    random = np.random.default_rng(0)
    points = [(int(random.integers(shape[1])), int(random.integers(shape[0]))) for _ in range(200)]
    edges = np.flatnonzero(np.diff(columns.astype(int)))
    points += [(int(x) + side, shape[0] // 2) for x in edges for side in (0, 1)]
    inside = browser.run(
        "const area = document.getElementById('wrong-area');"
        "return arguments[0].map(([x, y]) => area.isPointInFill(new DOMPoint(x + 0.5, y + 0.5)))",
        points,
    )
    assert inside == [bool(wrong[y, x]) for x, y in points]


def test_predict_is_exact_for_an_image_of_any_size(browser: Browser) -> None:
    browser.open(consumer="spoco-zoo", width=1043, height=829)
    assert (browser.outcome, browser.number("wrong")) == ("exact", "0")


def test_following_the_advice_makes_it_exact(browser: Browser) -> None:
    browser.open(consumer="core", width=1043, height=832, halo=44)
    browser.press("Use the right values")
    assert browser.outcome == "wrong"
    browser.press("Pad the image")
    assert (browser.outcome, browser.number("wrong")) == ("exact", "0")
    assert browser.find("#width").get_attribute("value") == "1056"


def test_an_image_on_which_fiji_hangs_gets_smaller_tiles(browser: Browser) -> None:
    browser.open(consumer="jdll", width=9000, height=9000)
    assert browser.outcome == "hangs"
    browser.press("Declare one size")
    assert (browser.outcome, browser.number("tile")) == ("exact", "512")


def test_the_keyboard_is_enough(browser: Browser) -> None:
    browser.open(consumer="core", width=1040, height=832)
    browser.find("input[value=core]").send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.TAB)
    assert browser.find("input[value=ilastik]").is_selected()
    field = browser.driver.switch_to.active_element
    assert field.get_attribute("id") == "width"
    field.send_keys(Keys.ARROW_UP)
    assert "width=1041" in browser.driver.current_url
    drawing = browser.find("#map-svg")
    drawing.send_keys(Keys.ARROW_LEFT)
    assert browser.find("#chosen").text.startswith("Tile 2 of 3 across, 2 of 2 down")
    browser.driver.switch_to.active_element.send_keys(Keys.ARROW_UP, Keys.ARROW_LEFT)
    assert browser.find("#chosen").text.startswith("Tile 1 of 3 across, 1 of 2 down")


def test_a_click_on_a_tile_tells_where_it_lies(browser: Browser) -> None:
    browser.open(consumer="core", width=1043, height=832)
    assert "579 = 72 × 8 + 3: 3 px off the grid" in browser.find("#lens-words").text
    browser.find("#map-svg").click()  # its middle
    assert browser.find("#chosen").text.startswith("Tile 2 of 3 across")
    assert "It starts at 368 = 46 × 8: on the grid." in browser.find("#lens-words").text


def test_a_value_that_cannot_be_is_refused_in_words_and_nothing_else_changes(
    browser: Browser,
) -> None:
    browser.open(levels=3)
    browser.type("kernel", "4")
    assert browser.find("#outcome").text == "Kernel: give an odd whole number from 1 to 9"
    assert browser.number("shrink") == "44"
    browser.type("kernel", "5")
    assert browser.number("shrink") == f"{ValidUNetAxis(5, 2, 3, 2).shrink}"


def test_a_link_keeps_the_settings_and_nonsense_in_it_is_ignored(browser: Browser) -> None:
    browser.open(
        consumer="jdll", levels=2, depth=64, width=100, nonsense=1, kernel="<b>", factor=99
    )
    assert browser.find("input[value=jdll]").is_selected()
    shown = {name: browser.number(name) for name in ("period", "shrink")}
    assert shown == {"period": "4", "shrink": "20"}
    browser.type("levels", "1")
    assert browser.driver.current_url.split("#")[1] == "consumer=jdll&width=100&depth=64&levels=1"


@pytest.mark.parametrize("step", [16, 0])
def test_the_declaration_is_one_that_the_format_knows(browser: Browser, step: int) -> None:
    browser.open(depth=200, **({} if step else {"step": 0}))
    written = YAML(typ="safe", pure=True).load(browser.find("#rdf").text)
    inputs = [v0_5.SpaceInputAxis(**axis) for axis in written["inputs"][0]["axes"]]
    outputs = [v0_5.SpaceOutputAxisWithHalo(**axis) for axis in written["outputs"][0]["axes"]]
    assert [axis.id for axis in inputs] == [axis.id for axis in outputs] == ["z", "y", "x"]
    size = v0_5.ParameterizedSize(min=112, step=16) if step else 112
    assert {str(axis.size) for axis in inputs} == {str(size)}
    assert {(axis.halo, axis.size.offset) for axis in outputs} == {(48, 0)}


@pytest.mark.parametrize("width", [1366, 900, 380])
def test_it_fits_the_screen(browser: Browser, width: int) -> None:
    browser.screen(width)
    browser.open(consumer="core", width=9000, height=7000, tile=256)
    wide = browser.run("return document.documentElement.scrollWidth")
    assert wide <= width


@pytest.mark.parametrize("dark", [False, True])
def test_its_text_can_be_read_in_light_and_dark(browser: Browser, dark: bool) -> None:
    browser.screen(1366, dark=dark)
    browser.open()
    pairs = [("ink", "paper"), ("ink", "card"), ("soft", "paper"), ("soft", "card")]
    pairs += [("kept", "paper"), ("on-kept", "kept"), ("wrong", "card"), ("wrong", "bad-pale")]
    pairs += [("good", "good-pale"), ("ink", "good-pale"), ("ink", "bad-pale")]
    colours = browser.run(
        "const colour = (n) => getComputedStyle(document.body).getPropertyValue('--' + n);"
        "return arguments[0].map((pair) => pair.map(colour))",
        pairs,
    )
    ratios = {pair: contrast(*two) for pair, two in zip(pairs, colours, strict=True)}
    weak = {pair: ratio for pair, ratio in ratios.items() if ratio < 4.5}  # WCAG 2.1, level AA
    assert weak == {}


def contrast(one: str, other: str) -> float:
    """WCAG 2.1's contrast ratio of two colours #rrggbb."""
    lights = []
    for colour in (one, other):
        parts = [int(part, 16) / 255 for part in re.findall("[0-9a-f]{2}", colour)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_nothing_is_loaded_from_anywhere(browser: Browser) -> None:
    browser.open()
    loaded = browser.run("return performance.getEntriesByType('resource').map((r) => r.name)")
    assert [name for name in loaded if not name.startswith("data:")] == []
    assert json.dumps(loaded).count("http") == 0
