"""Experiments by name: what they leave, and that it is read back instead of made again."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from training.experiments.shift_equivariance import figures, suite, synthetic
from training.experiments.shift_equivariance.measured import table
from training.experiments.shift_equivariance.nuclei import (
    WHOLE,
    Sample,
    by_tile,
    clusterers,
    literal_difference,
    phases_of,
    samples,
)
from training.experiments.shift_equivariance.pictures import Discs
from training.experiments.shift_equivariance.setups import Setup
from training.experiments.shift_equivariance.stitching import SAME
from training.experiments.shift_equivariance.suite import EXPERIMENTS, perform
from zoo_models.catalog import find_model
from zoo_models.checkpoint import Checkpoint
from zoo_models.errors import ImageError, InputError

TINY = {
    "window-P": Setup("window-P", Discs(7, 2), 2, "learnt", 4, 3, 1e-3, 8, shifts=7),
    "window-above-P": Setup("window-above-P", Discs(7, 2), 2, "learnt", 6, 3, 1e-3, 8, shifts=7),
    "same-phase": Setup("same-phase", Discs(8, 2), 2, "learnt", 32, 3, 1e-3, 8, cells=4),
    "elastic": Setup("elastic", Discs(8, 2), 2, "learnt", 8, 1, 1e-3, 8, elastic=True),
    "noise": Setup("noise", Discs(8, 2), 2, "learnt", 10, 1, 1e-3, 8, noise=0.1),
}
"""Networks that have learnt nothing: what holds for them holds by theory."""


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "QUICK", {**synthetic.QUICK, **TINY})
    monkeypatch.setattr(synthetic, "CELLS", 3)


def test_an_experiment_leaves_numbers_a_table_and_pictures_and_is_not_run_again(
    tmp_path: Path, tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = perform("fig2a", tmp_path, quick=True)
    folder = tmp_path / "shift_equivariance" / "quick" / "fig2a-seed0"
    assert sorted(p.name for p in folder.iterdir()) == [
        "result.json",
        "result.md",
        "same-phase.png",
    ]
    kept = json.loads((folder / "result.json").read_text())
    assert kept["rows"][0]["separated"] == 1
    assert first.markdown() == (folder / "result.md").read_text()
    with Image.open(folder / "same-phase.png") as picture:
        assert picture.size == (2 * 9 * 32 + figures.GAP, 9 * 32)
    monkeypatch.setattr(synthetic, "learn", None)  # a second run would call it
    assert perform("fig2a", tmp_path, quick=True) == first


def test_discs_at_multiples_of_the_period_are_one_whatever_was_learnt(
    tmp_path: Path, tiny: None
) -> None:
    result = perform("fig2a", tmp_path, quick=True)
    assert (result.rows[0]["different"], result.rows[0]["instances"]) == (1, 16)
    assert all(result.statements.values())


@pytest.mark.parametrize("name", ["fig4a", "fig4b", "supp3a", "supp3b"])
def test_tiles_of_any_network_equal_the_whole_on_the_grid_only(
    name: str, tmp_path: Path, tiny: None
) -> None:
    result = perform(name, tmp_path, quick=True)
    assert result.statements["tiles equal the whole where they are n * P wide"]
    assert result.statements["and differ where they are not"]
    assert {row["n * P"] for row in result.rows} == {True, False}
    assert {row["discs"] for row in result.rows} <= set(range(9, 17))


def test_figures_4b_and_4c_share_a_network(tmp_path: Path, tiny: None) -> None:
    perform("fig4b", tmp_path, quick=True)
    networks = tmp_path / "shift_equivariance" / "networks" / "quick"
    kept = networks / "window-above-P-seed0" / "checkpoint.safetensors"
    written = kept.stat().st_mtime_ns
    perform("fig4c", tmp_path, quick=True)
    assert kept.stat().st_mtime_ns == written
    assert [p.name for p in networks.iterdir()] == ["window-above-P-seed0"]


def test_an_unknown_experiment_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No experiment 'fig7'; expected one of functions, "):
        perform("fig7", tmp_path, quick=True)


def test_real_tiles_of_the_catalogs_network_answer_as_passes_of_their_phases() -> None:
    model = find_model("nuclei-fluo-2d-discriminative")
    checkpoint = Checkpoint.load(model.checkpoint)
    example = samples(None, "example", 1)[0]
    small = Sample(example.image[:, :40, :48], example.labels[:40, :48])
    assert literal_difference(checkpoint, small) < SAME
    phases = phases_of(checkpoint, small)
    methods = clusterers(checkpoint)
    period = checkpoint.geometry.period[0]
    whole, on, off = (
        dict(by_tile(phases, methods, small.labels, tile))
        for tile in (WHOLE, 3 * period, 3 * period + 1)
    )
    assert on == whole
    assert off["own"].difference.largest > SAME
    assert list(whole) == ["own", "mean-shift"]


def test_missing_data_sets_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no splits\.json"):
        perform("fig6", tmp_path, quick=True, data=tmp_path / "nowhere")


def test_a_table_has_a_line_per_row() -> None:
    rows = [{"tile": 8, "n * P": True, "wrong": 0.5}, {"tile": 9, "n * P": False, "wrong": 3e-06}]
    assert table(rows).splitlines() == [
        "| tile | n * P | wrong |",
        "|---|---|---|",
        "| 8 | yes | 0.5 |",
        "| 9 | no | 3e-06 |",
    ]


def test_a_chart_is_svg_with_a_dot_per_point_inside_its_frame() -> None:
    curves = {"one": [(16, 3.0), (20, 9.0)], "other": [(16, 4.0), (20, 4.0)]}
    root = ElementTree.fromstring(figures.chart(curves, title="t", across="x", marked=[16]))
    dots = [e for e in root.iter() if e.tag.endswith("circle")]
    assert len(dots) == 4
    assert all(0 <= float(d.attrib["cx"]) <= figures.WIDTH for d in dots)
    heights = [float(d.attrib["cy"]) for d in dots]
    assert heights[0] == max(heights)
    assert heights[1] == min(heights)


@pytest.mark.slow
def test_quick_experiments_say_what_the_paper_says(tmp_path: Path) -> None:
    names = ("functions", "capacity", "fig2a", "fig2b", "fig2c", "fig4a", "fig4b", "fig4c")
    for name in (*names, "fig5", "fig5-fixed", "supp2"):
        result = perform(name, tmp_path, quick=True)
        assert all(result.statements.values()), result.markdown()


def test_every_experiment_has_a_title_and_every_setup_is_used() -> None:
    assert set(suite.TITLES) == set(synthetic.EXPERIMENTS)
    assert all(e.title for e in EXPERIMENTS.values())
    used = Path(synthetic.__file__).read_text().split("EXPERIMENTS:")[1]
    assert all(f'"{name}"' in used for name in synthetic.FULL)
