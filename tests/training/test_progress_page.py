"""The page of a run joins the tables of all its starts, and needs nothing but itself."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Sequence
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from training.config import load_config
from training.progress.curves import (
    APART,
    BOTTOM,
    HEIGHT,
    LEFT,
    MOST_POINTS,
    RIGHT,
    TOP,
    WIDTH,
    Line,
    chart,
    read_curves,
    thinned,
    ticks,
)
from training.progress.page import RunState, as_toml, page
from training.provenance import provenance
from training.transfer import Source

STATE = RunState(step=50, max_steps=200, said="running", written="2030-01-02 03:04 UTC")


def write_table(run_dir: Path, version: int, rows: Sequence[str], end: str = "\n") -> None:
    folder = run_dir / "csv" / f"version_{version}"
    folder.mkdir(parents=True)
    head = "epoch,step,train/loss_step,val/ap50"
    (folder / "metrics.csv").write_text("\n".join([head, *rows]) + end)


def paths(svg: str, look: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [e.attrib["d"] for e in root.iter() if e.attrib.get("class") == look]


def test_a_resumed_run_has_every_step_once_and_the_later_start_holds(tmp_path: Path) -> None:
    write_table(tmp_path, 0, ["0,24,5.0,", "0,49,4.0,", "0,49,,0.1", "1,74,3.0,", "1,80,2.5,"])
    write_table(tmp_path, 1, ["1,74,3.5,", "1,99,2.0,", "1,99,,0.2"])
    curves = read_curves(tmp_path)
    assert curves["train/loss_step"] == [(25, 5.0), (50, 4.0), (75, 3.5), (100, 2.0)]
    assert curves["val/ap50"] == [(50, 0.1), (100, 0.2)]


def test_ten_starts_are_joined_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for version in range(11):
        write_table(tmp_path, version, [f"0,9,{version},"])
    assert read_curves(tmp_path)["train/loss_step"] == [(10, 10.0)]


def test_a_line_that_was_being_written_when_the_run_died_is_left_out(tmp_path: Path) -> None:
    write_table(tmp_path, 0, ["0,24,5.0,", "0,49,0.0"], end="")
    assert read_curves(tmp_path) == {"train/loss_step": [(25, 5.0)]}
    assert read_curves(tmp_path / "none") == {}


def test_a_score_is_drawn_where_its_value_says() -> None:
    line = Line([(0, 0.0), (100, 0.5), (200, 1.0)], "val")
    (path,) = paths(chart([line], last_step=200, unit=True), "val")
    middle = (LEFT + (WIDTH - LEFT - RIGHT) / 2, TOP + (HEIGHT - TOP - BOTTOM) / 2)
    expected = [LEFT, HEIGHT - BOTTOM, *middle, WIDTH - RIGHT, TOP]
    assert [float(n) for n in re.findall(r"[\d.]+", path)] == pytest.approx(expected, abs=0.06)


def test_a_loss_is_drawn_on_a_square_root_axis() -> None:
    (path,) = paths(chart([Line([(0, 16.0), (10, 4.0)], "pale")], last_step=10), "pale")
    top, second = (float(n) for n in re.findall(r"[\d.]+", path)[1::2])
    bottom = HEIGHT - BOTTOM
    assert (bottom - second) / (bottom - top) == pytest.approx(math.sqrt(4 / 16), abs=0.01)


def test_a_value_that_is_not_finite_interrupts_the_line() -> None:
    points = [(1, 2.0), (2, 1.0), (3, math.nan), (4, 1.0), (5, math.inf), (6, 1.0), (7, 2.0)]
    (path,) = paths(chart([Line(points, "pale")], last_step=7), "pale")
    assert path.count("M") == 3
    assert path.count("L") == 2
    assert path.count("h0") == 1  # the single point between two gaps stays visible
    assert "nan" not in path


@pytest.mark.parametrize("values", [[], [0.0], [math.nan], [-3.0, 2.0], [1e-12], [1e9]])
def test_every_curve_can_be_drawn(values: list[float]) -> None:
    svg = chart([Line(list(enumerate(values)), "pale")], last_step=0)
    numbers = [float(n) for d in paths(svg, "pale") for n in re.findall(r"-?[\d.]+", d)]
    assert all(-0.1 <= n <= WIDTH for n in numbers)


@given(st.floats(-1e6, 0), st.floats(1e-6, 1e6))
def test_ticks_are_round_and_apart(low: float, high: float) -> None:
    found = ticks(low, high, lambda v: v)
    assert 0.0 in found
    assert all(low <= v <= high for v in found)
    gaps = [b - a for a, b in pairwise(found)]
    assert all(gap >= 0.999 * APART * (high - low) for gap in gaps)
    assert {f"{abs(v):.0e}"[0] for v in found} <= set("0125")
    assert len(found) >= 2


def test_a_long_curve_is_thinned_to_means_of_its_neighbours() -> None:
    points = [(step, float(step % 2)) for step in range(10 * MOST_POINTS)]
    thin = thinned(points)
    assert len(thin) == MOST_POINTS
    assert {value for _, value in thin} == {0.5}
    assert thin[-1][0] == points[-1][0]


def test_the_configuration_on_the_page_reads_as_the_one_of_the_run(config_file: Path) -> None:
    record = provenance(load_config(config_file), None)["config"]
    read = tomllib.loads(as_toml(record))
    for section in ("network", "clusterer"):  # TOML has no word for None
        assert read[section] == {k: v for k, v in record[section].items() if v is not None}
    assert read["seed"] == 3


class Seen(HTMLParser):
    """Tags and links of a page; refuses tags that are closed in another order than opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    (tmp_path / "pictures").mkdir()
    found = [tmp_path / "pictures" / f"step-{step:06d}.png" for step in (25, 50)]
    for path in found:
        Image.new("RGB", (4, 3)).save(path)
    return found


def test_the_page_is_well_formed_and_needs_neither_scripts_nor_the_network(
    config_file: Path, pictures: list[Path], tmp_path: Path
) -> None:
    curves = {
        "train/loss_step": [(25, 2.0), (50, math.nan)],
        "train/unlabeled_push_step": [(25, 1.0)],
        "val/ap50": [(25, 0.7), (50, 0.25)],
        "val/sbd": [(25, 0.3), (50, 0.4)],
    }
    record = provenance(load_config(config_file), Source("a.safetensors", "<cells>", "ab12", 0.1))
    text = page(record, STATE, curves=curves, pictures=pictures)
    seen = Seen(text)
    assert not seen.tags & {"script", "link", "iframe"}
    outside = [link for link in seen.links if not link.startswith("data:image/png")]
    assert outside
    assert all((tmp_path / link).is_file() for link in outside)
    for words in (
        "step 50 of 200 (25 %)",
        "AP@0.5 0.250, best 0.700 at step 25",
        "not finite at 1 steps, first at 50",
        "&lt;cells&gt;, sha256 ab12",
        "unlabeled push",
        "prefers-color-scheme: dark",
        'name="viewport"',
    ):
        assert words in text, words
    assert str(tmp_path) not in text


def test_a_run_that_died_before_its_first_validation_has_a_page(config_file: Path) -> None:
    state = RunState(0, 200, "stopped: OSError: no <room>", "2030-01-02 03:04 UTC")
    text = page(provenance(load_config(config_file), None), state, curves={}, pictures=[])
    Seen(text)
    assert 'class="stopped">stopped: OSError: no &lt;room&gt;' in text
    assert "No validation yet" in text
