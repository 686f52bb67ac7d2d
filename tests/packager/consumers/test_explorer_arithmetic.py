"""The arithmetic of docs/tiling-explorer.html against the functions that it repeats.

Its script block "arithmetic" knows no page, so it runs in a small JavaScript engine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import quickjs
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from packager.audit import verdicts
from packager.audit.measure import MeasuredAxis, Measurement
from packager.audit.tiles import right_along
from packager.consumers import core, ilastik, jdll
from packager.consumers.placement import AxisTile, DeclaredAxis, Placement, Refusal
from packager.consumers.stitch import stitch
from tests.packager.consumers.conftest import EXACT, Toy, noise
from zoo_models.errors import GeometryError
from zoo_models.geometry import AxisTiling, TileGeometry, ValidUNetAxis
from zoo_models.prediction.blocks import BlockGrid
from zoo_models.receptive_field import ProbedAxis

PAGE = Path(__file__).parents[3] / "docs" / "tiling-explorer.html"


class Script:
    """Calls functions of the page: plain values in and out."""

    def __init__(self) -> None:
        blocks = re.findall(r'<script id="(\w+)">(.*?)</script>', PAGE.read_text(), re.DOTALL)
        self.context = quickjs.Context()
        self.context.eval(dict(blocks)["arithmetic"])

    def __call__(self, function: str, *values: Any) -> Any:
        given = ", ".join(map(json.dumps, values))
        return json.loads(self.context.eval(f"JSON.stringify({function}({given}))"))


JS = Script()

networks = st.builds(
    ValidUNetAxis,
    kernel=st.sampled_from([1, 3, 5, 7]),
    convolutions=st.integers(1, 4),
    levels=st.integers(0, 4),
    factor=st.integers(2, 4),
).filter(lambda network: network.halo < 1500)
small_networks = networks.filter(lambda network: network.halo <= 200)
shapes = st.lists(st.integers(1, 1500), min_size=2, max_size=3)


def of_page(network: ValidUNetAxis) -> dict[str, int]:
    names = ("kernel", "convolutions", "levels", "factor")
    return {name: getattr(network, name) for name in names}


def declared(axis: DeclaredAxis | AxisTiling) -> dict[str, int]:
    return {"minimum": axis.minimum, "step": axis.step, "halo": axis.halo}


@st.composite
def declarations(draw: st.DrawFn, network: ValidUNetAxis) -> DeclaredAxis:
    """The right one, or one with a value or two of somebody's own."""
    right = TileGeometry.from_network([network, network]).axes[0]
    return DeclaredAxis(
        draw(st.just(right.minimum) | st.integers(1, 2 * right.minimum)),
        draw(st.sampled_from([right.step, 0, network.period]) | st.integers(1, 64)),
        draw(st.just(right.halo) | st.integers(0, right.halo + 9)),
    )


def page_state(
    network: ValidUNetAxis, axis: DeclaredAxis | None, shape: Sequence[int]
) -> dict[str, Any]:
    """What the page's fields hold; without an axis the right one is declared."""
    sizes = dict(zip(("width", "height", "depth"), (*reversed(shape), 0), strict=False))
    return {**of_page(network), **({} if axis is None else declared(axis)), **sizes}


def tiles_of(found: Sequence[Sequence[AxisTile]]) -> list[list[dict[str, list[int]]]]:
    return [
        [{"read": [*t.read], "crop": [*t.crop], "write": [*t.write]} for t in tiles]
        for tiles in found
    ]


def expect_equal(mine: dict[str, Any], theirs: Placement | Refusal) -> None:
    if isinstance(theirs, Refusal):
        assert mine["refusal"]["how"] == theirs.how
    else:
        assert mine["axes"] == tiles_of(theirs.axes)


def wrapped_axis(network: ValidUNetAxis) -> MeasuredAxis:
    """What `measure` finds of the wrapper that packages ship: size kept, one halo of it blank."""
    halo, reach, size = network.halo, network.shrink, (Fraction(1), Fraction(0))
    at = (reach,) * network.period
    field = ProbedAxis(reach, reach, True, network.period, *size, at, at)
    sides = ((reach, reach), (halo, halo))
    return MeasuredAxis("x", halo, halo, True, *sides, network.period, *size, field)


@given(networks)
def test_the_network_and_its_right_declaration_are_those_of_geometry(
    network: ValidUNetAxis,
) -> None:
    mine = JS("networkAxis", of_page(network))
    python = {name: re.sub("([A-Z])", r"_\1", name).lower() for name in mine}
    assert mine == {name: getattr(network, python[name]) for name in mine}
    right = TileGeometry.from_network([network, network]).axes[0]
    assert JS("rightDeclaration", mine) == declared(right)


WORDS = {
    "step": r"step \d+ is no multiple of 2",
    "minimum": "minimum .* is no multiple of step",
    "halo-grid": "halo .* is no multiple of the period",
    "halo-shrink": "is less than the shrink",
    "kept": "fewer than 2",
}


@given(st.data(), networks)
def test_a_declaration_has_the_faults_for_which_geometry_refuses_it(
    data: st.DataObject, network: ValidUNetAxis
) -> None:
    axis = data.draw(declarations(network))
    faults = JS("declarationFaults", declared(axis), JS("networkAxis", of_page(network)))
    told = ""
    try:
        AxisTiling(axis.minimum, axis.step, network.period, network.shrink, axis.halo)
    except GeometryError as error:
        told = str(error)
    assert faults == [name for name, words in WORDS.items() if re.search(words, told)]
    assert bool(faults) == bool(told)


@given(st.data(), networks, shapes)
def test_tiles_lie_where_the_consumers_place_them(
    data: st.DataObject, network: ValidUNetAxis, shape: list[int]
) -> None:
    axis = data.draw(declarations(network))
    axes, mine = [axis] * len(shape), [declared(axis)] * len(shape)
    n, channels = data.draw(st.integers(0, 12)), data.draw(st.integers(1, 400))
    ns = [n] * len(shape)
    expect_equal(JS("placeCore", mine, shape, ns), core.place(axes, shape, n=ns))
    expect_equal(JS("placeCoreWhole", mine, shape), core.place_whole(axes, shape))
    assert JS("coreAccepts", mine, shape) == (core.accepts(axes, shape) is None)
    theirs = ilastik.place(axes, shape, channels=channels)
    expect_equal(JS("placeIlastik", mine, shape, channels), theirs)
    placed = jdll.place(axes, shape, output_channels=channels)
    expect_equal(JS("placeJdll", mine, shape, channels), placed)


@given(networks, shapes, st.integers(1, 2000))
def test_tiles_lie_where_predict_places_its_blocks(
    network: ValidUNetAxis, shape: list[int], limit: int
) -> None:
    geometry = TileGeometry.from_network([network] * len(shape))
    mine = JS(
        "placeSpocoZoo",
        [declared(axis) for axis in geometry.axes],
        shape,
        limit,
        JS("networkAxis", of_page(network)),
    )["axes"]
    grid = BlockGrid.covering(shape, geometry, tile_limit=limit)
    counts = [len(tiles) for tiles in mine]
    assert np.prod(counts) == len(grid)
    for axis, tiles in enumerate(mine):
        for number, tile in enumerate(tiles):
            block = grid.block(tuple(number if i == axis else 0 for i in range(len(shape))))
            for name in ("read", "write"):
                box = getattr(block, name)
                assert tile[name] == [box.start[axis], box.stop[axis]]
            assert tile["crop"] == [block.keep.start[axis], block.keep.stop[axis]]


@given(st.data(), small_networks, st.lists(st.integers(1, 900), min_size=2, max_size=2))
def test_the_right_pixels_are_those_of_the_audit(
    data: st.DataObject, network: ValidUNetAxis, shape: list[int]
) -> None:
    axes = [data.draw(declarations(network))] * 2
    n = data.draw(st.integers(0, 4))
    for placed in (core.place(axes, shape, n=[n, n]), ilastik.place(axes, shape)):
        if isinstance(placed, Placement):
            tiles = placed.axes[1]
            mine = JS(
                "rightAlong", tiles_of([tiles])[0], shape[1], JS("networkAxis", of_page(network))
            )
            theirs = right_along(tiles, shape[1], wrapped_axis(network), shape[1])
            assert [*mine.values()] == theirs.astype(int).tolist()


def judged(network: ValidUNetAxis, axis: DeclaredAxis, shape: Sequence[int]) -> dict[str, Any]:
    """The audit's verdicts, consumer by consumer, without running any tile."""
    measured = Measurement("embeddings", axes=(wrapped_axis(network),) * len(shape))
    model, output = SimpleNamespace(image=SimpleNamespace(channels=1)), SimpleNamespace(channels=16)
    seen: Any = SimpleNamespace(model=model, output=output)
    subject = verdicts.Subject(
        seen, measured, (axis,) * len(shape), lambda raw: raw, False, np.zeros(1, np.float32), 0
    )
    with patch.object(verdicts, "cannot_load", lambda model: {}):
        found, _ = verdicts.judge(subject, tuple(shape))
    return {verdict.consumer: verdict for verdict in found}


NAMES = {
    "core": core.NAME,
    "core-whole": verdicts.CORE_WHOLE,
    "ilastik": ilastik.NAME,
    "jdll": jdll.NAME,
}


@settings(max_examples=30)
@given(st.data(), small_networks, st.lists(st.integers(100, 600), min_size=2, max_size=3))
def test_the_page_says_what_the_audit_says(
    data: st.DataObject, network: ValidUNetAxis, shape: list[int]
) -> None:
    right = TileGeometry.from_network([network, network]).axes[0]
    halo = data.draw(st.sampled_from([right.halo, network.shrink, right.halo + network.period]))
    axis = DeclaredAxis(right.minimum, data.draw(st.sampled_from([right.step, 0])), halo)
    default = axis.minimum + core.DEFAULT_N * axis.step
    tile = default if min(shape) >= default else axis.minimum + axis.step  # as the audit chooses n
    state = page_state(network, axis, shape) | {"tile": tile, "channels": 16}
    theirs = judged(network, axis, shape)
    for consumer, name in NAMES.items():
        mine, verdict = JS("explore", {**state, "consumer": consumer}), theirs[name]
        if mine["outcome"] == "fails" and "refusal" not in mine:
            continue  # the network takes no such tile: the audit sees that when it runs one
        assert mine["outcome"] == verdict.outcome
        if "refusal" not in mine:
            assert np.prod(mine["tiles"]) == verdict.tiles
            assert mine["wrongPart"] == pytest.approx(verdict.wrong, abs=1e-12)
        if verdict.grid and consumer != "core":  # there the audit takes other tiles at other sizes
            assert mine["grid"] == verdict.grid[0]


@pytest.mark.parametrize("consumer", [*NAMES, "spoco-zoo"])
@settings(max_examples=40)
@given(small_networks, st.lists(st.integers(1, 600), min_size=2, max_size=2))
def test_an_image_padded_as_the_page_says_is_exact(
    consumer: str, network: ValidUNetAxis, shape: list[int]
) -> None:
    chosen = {"consumer": consumer, "channels": 4, "tile": 300}
    padded = JS("explore", page_state(network, None, shape) | chosen)["padded"]
    assume(padded)
    assert all(after >= before for after, before in zip(padded, shape, strict=True))
    found = JS("explore", page_state(network, None, padded) | chosen)
    assert found["outcome"] == "exact"
    assert found["padded"] == padded


@given(small_networks, st.integers(0, 3), st.integers(1, 40), st.integers(1, 4))
def test_one_size_called_right_is_exact_in_all_three_programs(
    network: ValidUNetAxis, more: int, tile: int, times: int
) -> None:
    period = network.period
    axis = DeclaredAxis(tile * period, 0, network.halo + more * period)
    assume(JS("fixedSizeIsRight", declared(axis), JS("networkAxis", of_page(network))))
    state = page_state(network, axis, [axis.minimum + 2 * times * period] * 2) | {"channels": 1}
    for consumer in ("core", "ilastik", "jdll"):
        found = JS("explore", {**state, "consumer": consumer})
        assert found["outcome"] == "exact" or "100 MiB" in found["refusal"]["reason"]


@pytest.mark.parametrize("consumer", ["core", "ilastik", "jdll"])
@pytest.mark.parametrize("halo", [24, 20, 28])
def test_pixels_called_wrong_differ_in_a_real_network(
    toy: Callable[[int], Toy], consumer: str, halo: int
) -> None:
    network = toy(2)  # period 4, shrink 20, halo 24
    shape, axes = (121, 140), [DeclaredAxis(64, 0, halo)] * 2
    module = {"core": core, "ilastik": ilastik, "jdll": jdll}[consumer]
    placed = module.place(axes, shape)
    assert isinstance(placed, Placement)
    image = noise(shape)
    truth = network.whole(image, placed.padding)
    gap = np.abs(stitch(network.wrapped, image, placed).output - truth).max(axis=0) / truth.std()
    chosen = {"consumer": consumer, "channels": 2, "tile": 64}
    mine = JS("explore", page_state(ValidUNetAxis(3, 2, 2, 2), axes[0], shape) | chosen)
    rows, columns = (np.array([*flags.values()], bool) for flags in mine["flags"])
    right = rows[:, None] & columns
    assert gap[right].max(initial=0) < EXACT
    assert 0 < mine["wrong"] == (~right).sum()
    assert (gap[~right] > EXACT).mean() > 0.99
