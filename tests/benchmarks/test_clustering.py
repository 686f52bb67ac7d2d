"""The benchmark of the clusterers measures what it says, and tells what it leaves out."""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo_models.metrics import score
from zoo_models.synthetic_embeddings import Scene, synthesise

FOLDER = Path(__file__).parents[2] / "benchmarks"
QUIET = Scene((60, 70), 8, "voronoi", sigma=0.05, seed=3)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def benchmark() -> Any:
    """The script as a module; its neighbours are found as when it is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        return import_module("clustering")


@pytest.fixture(scope="module")
def parts() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        return import_module("clustering_contenders"), import_module("clustering_inputs")


@pytest.fixture
def job(parts: Any, tmp_path: Path) -> Any:
    """basin_merging on the quiet scene, once."""
    contenders, inputs = parts
    case = inputs.synthetic_case(QUIET, tmp_path, teacher=False)
    settings = case.settings("basin_merging", background_known=True)
    return contenders.Job("basin_merging", settings, 1, 60.0, images=case.images)


def test_a_measured_method_has_the_scores_of_its_labels(parts: Any, job: Any) -> None:
    contenders, _ = parts
    drawn = synthesise(QUIET)
    expected = score(contenders.build(job)(drawn.embeddings), drawn.truth)
    found = contenders.measure(job)
    assert found["ap50"] == expected.ap50 > 0.9
    assert found["arand_error"] == expected.arand_error
    assert found["seconds"] > 0


def test_memory_is_what_a_method_adds_to_the_embeddings(
    parts: Any, job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    contenders, _ = parts

    def wasteful(embeddings: np.ndarray) -> np.ndarray:
        return np.ones(64 << 20, np.uint8)[: embeddings[0].size].reshape(embeddings[0].shape)

    monkeypatch.setattr(contenders, "build", lambda _: lambda e: wasteful(e).astype(np.int32))
    assert 60 << 20 < contenders.measure(job)["peak_bytes"] < 80 << 20


@pytest.mark.parametrize("known", [True, False], ids=["background known", "largest"])
def test_the_libraries_find_the_instances_of_a_quiet_scene_and_agree(
    parts: Any, tmp_path: Path, known: bool
) -> None:
    contenders, inputs = parts
    scene = Scene((60, 70), 8, "cells", sigma=0.05, seed=3)
    drawn = synthesise(scene)
    case = inputs.synthetic_case(scene, tmp_path, teacher=False)
    found = []
    for peer in contenders.PEERS:
        pytest.importorskip(peer)
        settings = case.settings(peer, background_known=known)
        found.append(contenders.build(contenders.Job(peer, settings, 1, 60.0))(drawn.embeddings))
        assert score(found[-1], drawn.truth).ap50 == 1.0
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_floor_reads_every_number(parts: Any, threads: int) -> None:
    contenders, _ = parts
    embeddings = np.zeros((2, 5, 7), np.float32)
    embeddings[1, 3, 4] = 9
    assert contenders.build(contenders.Job("floor", {}, threads, 1.0))(embeddings) == 9


def test_a_model_keeps_its_settings_for_its_own_method_only(parts: Any) -> None:
    _, inputs = parts
    own = {"join": 0.7, "min_size": 30, "background": [1.0, 2.0], "spread": [1.0, 0.0, 0.0, 1.0]}
    case = inputs.Case("m", (), inputs.ClustererSettings("basin_merging", own), 0.4, 1.5, 100)
    margins = {"delta_v": 0.4, "delta_d": 1.5}
    shared = {"min_size": 30, "background": [1.0, 2.0]}
    of = case.settings
    assert of("basin_merging", background_known=True) == {**margins, **own}
    assert of("basin_merging, compiled", background_known=True) == {**margins, **own}
    assert of("mean_shift", background_known=True) == {**margins, **shared}
    assert of("mwatershed", background_known=True) == {"delta_d": 1.5, **shared}
    assert of("basin_merging", background_known=False) == {**margins, "join": 0.7, "min_size": 30}


def test_what_smaller_inputs_show_to_take_too_long_is_left_out(benchmark: Any) -> None:
    row = benchmark.Row("small", "m", 100, {"seconds": 2.0, "peak_bytes": 1 << 20})
    case = benchmark.Case("big", (), None, 0.5, 2.0, 1000)
    assert benchmark._too_much(case, 21.0, [row]) == ""
    assert benchmark._too_much(case, 19.0, [row]) == (
        "2 s on small, so 20 s or more here, above the limit of 19 s"
    )


def test_what_smaller_inputs_show_to_need_too_much_memory_is_left_out(benchmark: Any) -> None:
    row = benchmark.Row("small", "m", 1, {"seconds": 0.0, "peak_bytes": 1 << 30})
    case = benchmark.Case("big", (), None, 0.5, 2.0, 1 << 20)
    assert benchmark._too_much(case, 9.0, [row]).startswith("needs 1073741824 MiB or more")


def test_the_table_compares_with_hdbscan_the_faster_library_and_the_floor(benchmark: Any) -> None:
    seconds = {
        "floor": 0.001,
        "mwatershed": 3.0,
        "bioimage_cpp": 2.0,
        "hdbscan_pixels": 40.0,
        "new": 0.01,
    }
    scores = {"arand_error": 0.125, "arand_contest": 0.0625, "ap50": 0.75}
    rest = {"first_seconds": 0.5, "peak_bytes": 3 << 20, **scores}
    rows = [benchmark.Row("c", n, 1, {"seconds": s, **rest}) for n, s in seconds.items()]
    last = [*benchmark.table([*rows, benchmark.Row("c", "slow", 1, reason="too slow")])][-1]
    cells = [cell.strip() for cell in last.strip("|").split("|")]
    assert cells == [
        "c",
        "new",
        "0.01",
        "0.5",
        "3",
        "0.125",
        "0.062",
        "0.750",
        "4e+03",
        "200",
        "10",
    ]


@pytest.mark.slow
def test_the_command_prints_and_writes_a_table(
    benchmark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "--sizes 48x48 8x24x24 --methods basin_merging --repeats 1 --json"
    benchmark.main(benchmark.parser().parse_args([*command.split(), str(tmp_path / "all.json")]))
    printed = capsys.readouterr().out
    assert "| 48x48, 1 cells | basin_merging |" in printed
    assert "Nothing was left out." in printed
    rows = json.loads((tmp_path / "all.json").read_text("utf-8"))
    assert [row["contender"] for row in rows] == ["floor", "basin_merging"] * 2
    assert all(row["found"]["seconds"] > 0 for row in rows)


@pytest.mark.slow
def test_a_method_over_its_limit_is_stopped_and_told(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "SLACK", 0)
    monkeypatch.setattr(benchmark, "BUSY", 1000)
    command = ["--sizes", "48x48", "--methods", "basin_merging", "--limit", "1"]
    benchmark.main(benchmark.parser().parse_args(command))
    assert "- basin_merging, 48x48, 1 cells: stopped after 1 s" in capsys.readouterr().out


@pytest.mark.slow
def test_the_noise_study_scores_every_scene(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "SIGMAS", (0.05, 0.1))
    command = "--quality --sizes 48x48 --methods basin_merging --kinds cells voronoi"
    benchmark.main(benchmark.parser().parse_args(command.split()))
    lines = [line for line in capsys.readouterr().out.splitlines() if "| basin_merging |" in line]
    assert len(lines) == 2 * 9 + 2
    assert lines[0].startswith("| basin_merging | cells, blur 0, correlation 0 | 1.00 / 0.0")
