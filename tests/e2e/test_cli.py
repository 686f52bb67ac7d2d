"""From a folder of images to scored instances, through the commands a user types."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from packager import doctor
from packager.doctor import Diagnosis, Row
from tests.e2e.conftest import Chain, Outcome, run
from tests.packager.conftest import CARD
from tests.training.conftest import discs
from zoo_models import catalog
from zoo_models.checkpoint import Checkpoint
from zoo_models.prediction.images import read_labels

COMMANDS = (
    "train",
    "tune",
    "import",
    "export",
    "predict",
    "cluster",
    "pad",
    "crop",
    "evaluate",
    "audit",
    "models",
    "doctor",
    "experiments",
)
HEAVY = ("torch", "numpy", "scipy", "bioimageio", "lightning", "xarray", "tifffile", "pydantic")


def truth_of(chain: Chain, name: str) -> Path:
    return chain.data / "labels" / f"{name}.tif"


def predict(package: Path, images: Path, out: Path, *options: object) -> Outcome:
    outcome = run("predict", package, images, "-o", out, *options)
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    return outcome


def strict(text: str) -> Any:
    """JSON as other programs read it: no NaN, no Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_images_become_a_network_a_package_instances_and_scores(
    chain: Chain, tmp_path: Path
) -> None:
    assert chain.train.code == 0, chain.train.err
    assert f"next: spoco-zoo export {chain.checkpoint}" in chain.train.out
    assert Checkpoint.load(chain.checkpoint).provenance["data"] == "data"
    assert chain.export.code == 0, chain.export.err
    assert str(chain.package) in chain.export.out
    assert "no warnings" in chain.export.out

    out = tmp_path / "out"
    predicted = predict(chain.package, chain.data, out, "--split", "test", "--overlay")
    assert [p.name for p in sorted(out.iterdir())] == [
        "d_labels.ome.tif",
        "d_objects.csv",
        "d_overlay.png",
        "e_labels.ome.tif",
        "e_objects.csv",
        "e_overlay.png",
    ]
    assert predicted.out.count(" instances") == 2

    scored = run("evaluate", out, chain.data, "--split", "test", "--json")
    assert scored.code == 0, scored.err
    overall = strict(scored.out)["overall"]
    assert overall["images"] == 2
    assert overall["sbd"] > 0.3  # an untrained network of this size: 0.0


def test_the_package_carries_what_was_trained(chain: Chain, package: Path) -> None:
    with zipfile.ZipFile(package) as archive:
        assert archive.testzip() is None
        description = archive.read("rdf.yaml").decode()
    assert "spoco_zoo" in description
    assert str(chain.folder) not in description


def test_labels_are_an_ome_tiff_with_axes_and_the_images_size(
    package: Path, image: Path, tmp_path: Path
) -> None:
    predict(package, image, tmp_path / "out")
    with tifffile.TiffFile(tmp_path / "out" / "good_labels.ome.tif") as tiff:
        assert tiff.is_ome
        assert tiff.series[0].axes == "YX"
        assert tiff.series[0].shape == (48, 64)
        assert tiff.series[0].dtype == np.uint32


@pytest.mark.parametrize("shape", [(97, 131), (48, 203)])
def test_labels_are_the_same_whatever_the_tile(
    package: Path, tmp_path: Path, shape: tuple[int, int]
) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, discs(shape, 5)[0])
    found = []
    for tile in (1, 48, 80, 4096):  # 1: the smallest there is
        predict(package, path, tmp_path / str(tile), "--tile", tile)
        found.append(read_labels(tmp_path / str(tile) / "image_labels.ome.tif"))
    assert found[0].shape == shape
    assert found[0].max() >= 5
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (1, 64), (300, 2)])
def test_an_image_smaller_than_a_tile_gives_labels_of_its_own_size(
    package: Path, tmp_path: Path, shape: tuple[int, int]
) -> None:
    path = tmp_path / "small.tif"
    tifffile.imwrite(path, np.full(shape, 80, np.uint8))
    predict(package, path, tmp_path / "out", "--overlay")
    assert read_labels(tmp_path / "out" / "small_labels.ome.tif").shape == shape
    with Image.open(tmp_path / "out" / "small_overlay.png") as overlay:
        assert overlay.size == shape[::-1]


def test_the_overlay_is_a_colour_png_of_the_image(
    package: Path, image: Path, tmp_path: Path
) -> None:
    predict(package, image, tmp_path / "out", "--overlay")
    with Image.open(tmp_path / "out" / "good_overlay.png") as overlay:
        overlay.load()
        assert (overlay.format, overlay.mode, overlay.size) == ("PNG", "RGB", (64, 48))
        pixels = np.asarray(overlay)
    assert (pixels[..., 0] != pixels[..., 1]).any()  # outlines


# bioimageio.spec leaves the files open that it reads from a folder; the interpreter says so.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
def test_a_folder_and_an_unpacked_package_do_as_well(
    package: Path, image: Path, tmp_path: Path
) -> None:
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(package) as archive:
        archive.extractall(unpacked)
    predict(package, image, tmp_path / "zip")
    expected = read_labels(tmp_path / "zip" / "good_labels.ome.tif")
    for source in (unpacked, unpacked / "rdf.yaml"):
        out = tmp_path / f"out_{source.name}"
        predict(source, image.parent, out)
        np.testing.assert_array_equal(read_labels(out / "good_labels.ome.tif"), expected)


def test_a_png_gives_the_labels_of_the_same_tiff_and_one_channel_those_of_a_grey_image(
    package: Path, image: Path, tmp_path: Path
) -> None:
    grey = tifffile.imread(image)
    colour = np.stack([np.zeros_like(grey), grey, np.full_like(grey, 9)], axis=-1)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(colour).save(tmp_path / "colour.png")
    predict(package, image, tmp_path / "out")
    predict(package, tmp_path / "grey.png", tmp_path / "out")
    predict(package, tmp_path / "colour.png", tmp_path / "out", "--channel", 1)
    labels = [
        read_labels(tmp_path / "out" / f"{name}_labels.ome.tif")
        for name in ("good", "grey", "colour")
    ]
    assert labels[0].max() > 0
    np.testing.assert_array_equal(labels[1], labels[0])
    np.testing.assert_array_equal(labels[2], labels[0])


def test_prediction_again_with_overwrite_repeats_the_labels(
    package: Path, image: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    predict(package, image, out, "--overlay")
    before = read_labels(out / "good_labels.ome.tif")
    (out / "good_labels.ome.tif").write_text("an earlier result")
    predict(package, image, out, "--overlay", "--overwrite")
    np.testing.assert_array_equal(read_labels(out / "good_labels.ome.tif"), before)
    assert len(list(out.iterdir())) == 3  # no temporary files


def test_a_stack_keeps_its_planes_and_its_voxel_size(volumes: None, tmp_path: Path) -> None:
    stack = np.zeros((9, 30, 35), np.uint8)
    stack[2:7, 4:12, 4:12] = 200
    stack[2:7, 16:24, 4:12] = 90
    metadata = {"axes": "ZYX", "PhysicalSizeZ": 0.5, "PhysicalSizeY": 0.1, "PhysicalSizeX": 0.1}
    tifffile.imwrite(tmp_path / "stack.ome.tif", stack, metadata=metadata)
    outcome = predict(tmp_path, tmp_path / "stack.ome.tif", tmp_path / "out", "--overlay")
    assert "2 instances" in outcome.out
    labels_path = tmp_path / "out" / "stack_labels.ome.tif"
    found, true = read_labels(labels_path) > 0, stack > 0
    assert (found & true).sum() > 0.7 * (found | true).sum()
    with tifffile.TiffFile(labels_path) as tiff:
        assert tiff.series[0].axes == "ZYX"
        assert tiff.ome_metadata is not None
        assert 'PhysicalSizeZ="0.5"' in tiff.ome_metadata
    with Image.open(tmp_path / "out" / "stack_overlay.png") as overlay:
        assert overlay.size == (35, 30)


def test_labels_scored_against_themselves_are_perfect_in_json_and_table(chain: Chain) -> None:
    truth = truth_of(chain, "d")
    scores = strict(run("evaluate", truth, truth, "--json").out)
    assert scores["images"][0]["name"] == "d"
    for field, best in {"ap50": 1, "mean_ap": 1, "sbd": 1, "dic": 0, "arand_error": 0}.items():
        assert scores["overall"][field] == pytest.approx(best), field
    assert scores["overall"]["false_splits"] == scores["overall"]["false_merges"] == 0
    table = run("evaluate", truth, truth)
    assert table.code == 0
    for heading in ("AP@0.5", "mAP", "SBD", "|DiC|", "ARand", "splits", "merges"):
        assert heading in table.out
    assert "1.000" in table.out


def test_a_table_of_several_images_ends_with_all_of_them(chain: Chain) -> None:
    folder = chain.data / "labels"
    table = run("evaluate", folder, folder)
    assert table.code == 0
    lines = [line.split()[0] for line in table.out.splitlines() if line.strip()]
    assert lines[:7] == ["image", "a", "b", "c", "d", "e", "all"]


def test_scores_of_images_without_instances_are_still_json(tmp_path: Path) -> None:
    empty, full = np.zeros((9, 9), np.uint16), np.ones((9, 9), np.uint16)
    for folder, labels in (("found", [empty, empty, full]), ("true", [empty, full, empty])):
        (tmp_path / folder).mkdir()
        for name, image in zip("abc", labels, strict=True):
            tifffile.imwrite(tmp_path / folder / f"{name}.tif", image)
    scored = run("evaluate", tmp_path / "found", tmp_path / "true", "--json")
    assert scored.code == 0
    rows = {row["name"]: row for row in strict(scored.out)["images"]}
    assert (rows["b"]["ap50"], rows["c"]["ap50"]) == (0, 0)


def test_models_lists_the_catalog(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "ROOT", tmp_path)
    assert run("models") == Outcome(0, "", "")
    model = tmp_path / "discs-2d"
    model.mkdir()
    (model / "checkpoint.safetensors").write_bytes(chain.checkpoint.read_bytes())
    tifffile.imwrite(model / "sample.tif", discs((96, 128), 9)[0])
    (model / "card.toml").write_text(CARD)
    listed = run("models")
    assert listed.code == 0
    assert "discs-2d  0.2.0" in listed.out
    assert "Finds bright discs" in listed.out


def test_doctor_exits_with_1_when_something_has_to_be_mended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [Row("system", "python", "3.11")]
    monkeypatch.setattr(doctor, "diagnose", lambda: Diagnosis(tuple(rows)))
    assert run("doctor") == Outcome(0, "python  3.11\n", "")
    rows.append(Row("packages", "torch", "not installed", "problem", "install it"))
    sick = run("doctor")
    assert sick.code == 1
    assert sick.err == "problem: torch: not installed: install it\n"


def test_doctor_finds_this_installation_sound() -> None:
    outcome = run("doctor")
    assert outcome.code == (1 if outcome.err else 0)
    for name in ("python", "torch", "cpu", "zoo_models", "packager", "training"):
        assert name in outcome.out


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_explains_itself(command: str) -> None:
    outcome = run(*command.split(), "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert "Usage: " in outcome.out
    if not command:
        assert all(name in outcome.out for name in COMMANDS)


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from packager.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        "print(code, [n for n in sys.argv.pop().split(',') if n in sys.modules], file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, "--help", ",".join(HEAVY)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout
    assert done.stderr.splitlines()[-1] == "0 []"
