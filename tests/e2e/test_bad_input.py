"""Images and places that prediction cannot use: one line of what is wrong and what to do.

Exit code 2, and nothing written or half-written: `refused` looks at the folder afterwards.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tifffile
from PIL import Image

from packager import cli
from tests.e2e.conftest import (
    BAD_IMAGES,
    GREY,
    Chain,
    assert_says,
    bad_for_predict,
    nan,
    refused,
    run,
    text,
)
from zoo_models.prediction.images import read_labels


@bad_for_predict
def test_a_bad_image_is_refused(package: Path, folder: Path, spoil: Callable[[Path], None]) -> None:
    spoil(folder / "bad.tif")
    line = refused("predict", package, "bad.tif", "-o", "out", "--overlay", unchanged=folder)
    assert_says(line, "bad.tif", *BAD_IMAGES[spoil])


@bad_for_predict
def test_an_earlier_result_of_a_bad_image_is_kept(
    package: Path, folder: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(folder / "bad.tif")
    (folder / "out").mkdir()
    (folder / "out" / "bad_labels.ome.tif").write_text("an earlier result")
    refused("predict", package, "bad.tif", "-o", "out", "--overwrite", unchanged=folder)


def test_the_good_images_are_written_and_every_bad_one_has_its_line(
    package: Path, image: Path, folder: Path
) -> None:
    nan(folder / "nan.tif")
    text(folder / "text.tif")
    tifffile.imwrite(folder / "last.tif", GREY)
    outcome = run("predict", package, image, "nan.tif", "text.tif", "last.tif", "-o", "out")
    assert outcome.code == 2
    lines = outcome.err.splitlines()
    assert [line.startswith("error: ") for line in lines] == [True, True]
    assert_says(lines[0], "nan.tif", "1 NaN")
    assert_says(lines[1], "text.tif", "cannot be read")
    assert [line.split()[0] for line in outcome.out.splitlines()] == [
        f"out{os.sep}good_labels.ome.tif",
        f"out{os.sep}last_labels.ome.tif",
    ]
    written = sorted((folder / "out").iterdir())
    assert [path.name for path in written] == [
        "good_labels.ome.tif",
        "good_objects.csv",
        "last_labels.ome.tif",
        "last_objects.csv",
    ]
    assert all(read_labels(path).shape == (48, 64) for path in written[::2])


def test_a_flat_image_for_a_3d_network_is_refused(volumes: None, image: Path, folder: Path) -> None:
    line = refused("predict", folder, image, "-o", "out", unchanged=folder)
    assert_says(line, "2D image", "expected a 3D stack", "2D network")


def test_a_channel_that_is_not_there_is_refused(package: Path, image: Path, folder: Path) -> None:
    line = refused("predict", package, image, "-o", "out", "--channel", 1, unchanged=folder)
    assert_says(line, "1 channel(s)", "no channel 1", "expected 0")


def test_a_wrong_path_of_an_image_is_refused_with_its_neighbours(
    package: Path, image: Path, folder: Path
) -> None:
    line = refused("predict", package, image, "god.tif", "-o", "out", unchanged=folder)
    assert_says(line, "god.tif", "does not exist", "did you mean good.tif")


def test_an_empty_folder_is_refused(package: Path, folder: Path) -> None:
    (folder / "images").mkdir()
    (folder / "images" / "notes.txt").touch()
    line = refused("predict", package, "images", "-o", "out", unchanged=folder)
    assert_says(line, "images", "without images", ".tif", "name another folder")


def test_images_of_one_name_are_refused(package: Path, image: Path, folder: Path) -> None:
    Image.fromarray(GREY).save(folder / "good.png")
    line = refused("predict", package, image, "good.png", "-o", "out", unchanged=folder)
    assert_says(line, "good.png", "good.tif", "different")


def test_a_folder_without_splits_has_no_split(package: Path, image: Path, folder: Path) -> None:
    line = refused("predict", package, folder, "-o", "out", "--split", "test", unchanged=folder)
    assert_says(line, "no splits.json", "expected")


def test_a_split_of_several_folders_is_refused(package: Path, data: Path, folder: Path) -> None:
    line = refused("predict", package, data, data, "-o", "o", "--split", "val", unchanged=folder)
    assert_says(line, "one data folder", "found 2")


def test_an_unknown_split_is_refused_with_the_known(
    package: Path, data: Path, folder: Path
) -> None:
    line = refused("predict", package, data, "-o", "out", "--split", "test", unchanged=folder)
    assert_says(line, "no split 'test'", "found train, val")


def test_existing_labels_are_not_replaced_unasked(package: Path, image: Path, folder: Path) -> None:
    assert run("predict", package, image, "-o", "out").code == 0
    line = refused("predict", package, image, "-o", "out", "--overlay", unchanged=folder)
    assert_says(line, "good_labels.ome.tif", "exists already", "--overwrite")


def test_an_existing_overlay_is_not_replaced_unasked(
    package: Path, image: Path, folder: Path
) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "good_overlay.png").write_text("an earlier picture")
    line = refused("predict", package, image, "-o", "out", "--overlay", unchanged=folder)
    assert_says(line, "good_overlay.png", "exists already", "--overwrite")


@pytest.mark.parametrize("out", ["taken", "taken/out", "taken/deep/out"])
@pytest.mark.parametrize("command", ["predict", "export", "train"])
def test_a_file_in_the_way_of_the_output_is_refused(
    chain: Chain, image: Path, folder: Path, command: str, out: str
) -> None:
    (folder / "taken").write_text("a file")
    arguments = {
        "predict": (chain.package, image, "-o", out),
        "export": (chain.checkpoint, "-o", f"{out}/discs.zip"),
        "train": (chain.config, "-o", out),
    }
    line = refused(command, *arguments[command], unchanged=folder)
    assert_says(line, "taken", "found a file", "expected a folder", "--out")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("command", ["predict", "export", "train"])
def test_a_read_only_folder_is_refused(
    chain: Chain, image: Path, folder: Path, command: str
) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o555)
    arguments = {
        "predict": (chain.package, image, "-o", closed / "out"),
        "export": (chain.checkpoint, "-o", closed / "discs.zip"),
        "train": (chain.config, "-o", closed / "run"),
    }
    line = refused(command, *arguments[command], unchanged=folder)
    assert_says(line, "closed", "--out")


def test_a_folder_where_nothing_may_be_written_is_refused(
    package: Path, image: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    line = refused("predict", package, image, "-o", "out", unchanged=folder)
    assert_says(line, "nothing may be written", "--out")


@pytest.mark.parametrize("name", ["good_labels.ome.tif", "good_overlay.png"])
def test_a_result_that_cannot_be_written_leaves_no_half(
    package: Path, image: Path, folder: Path, name: str
) -> None:
    (folder / "out" / name).mkdir(parents=True)  # a folder under the name of the file
    line = run("predict", package, image, "-o", "out", "--overlay", "--overwrite").error
    assert_says(line, name, "cannot be written")
    whole = {"good_objects.csv", "good_labels.ome.tif", name}  # written before, and complete
    assert {path.name for path in (folder / "out").iterdir()} <= whole


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta"])
def test_an_unknown_device_is_refused(
    package: Path, image: Path, folder: Path, device: str
) -> None:
    line = refused("predict", package, image, "-o", "o", "--device", device, unchanged=folder)
    assert_says(line, f"'{device}'", "cannot be used", "doctor")


@pytest.mark.parametrize(
    "arguments", [("predict",), ("evaluate", "a.tif"), ("wrong",), ("export", "x", "--tile", "3")]
)
def test_wrong_usage_exits_with_2_and_says_how(folder: Path, arguments: tuple[str, ...]) -> None:
    outcome = run(*arguments)
    assert outcome.code == 2
    assert "Usage: " in outcome.err
    assert not list(folder.iterdir())


def test_an_error_of_the_file_system_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fill() -> None:
        raise OSError(28, "No space left on device", "/full/labels.tif")

    monkeypatch.setattr(cli, "app", fill)
    line = run("predict").error
    assert_says(line, "/full/labels.tif", "No space left on device", "name another path")


def test_a_fresh_process_says_no_more_than_that(package: Path, image: Path, folder: Path) -> None:
    """Libraries log to the real stderr of a process; here several commands share one."""
    (folder / "bad.zip").write_bytes(package.read_bytes()[:5000])
    (folder / "bad.tif").write_text("no image")
    commands = [
        ["predict", "bad.zip", str(image), "-o", "out"],
        ["predict", str(package), "bad.tif", "-o", "out"],
        ["predict", str(package), str(image), "-o", "out", "--overlay"],
    ]
    script = """
import json, sys
from packager.cli import main
for arguments in json.loads(sys.argv.pop()):
    sys.argv[1:] = arguments
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    print("exit", code, file=sys.stderr, flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(commands)],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stderr.splitlines()
    assert [line[:6] for line in lines] == ["error:", "exit 2", "error:", "exit 2", "exit 0"]
    assert done.stdout.startswith(f"out{os.sep}good_labels.ome.tif")
