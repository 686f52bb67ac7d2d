"""Other software predicts a padded image; the cropped result is that of one exact pass.

Here it is bioimageio.core: it reads the padded file itself and writes its own files.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bioimageio.core
import bioimageio.spec
import numpy as np
import pytest
import tifffile
from bioimageio.core import PredictionPipeline, Sample, Tensor

from tests.e2e.conftest import (
    BAD_IMAGES,
    GREY,
    Chain,
    Outcome,
    assert_says,
    bad_images,
    contents,
    refused,
    run,
)
from tests.training.conftest import discs
from zoo_models.package import Package
from zoo_models.prediction.blocks import BlockGrid
from zoo_models.prediction.engine import predict_embeddings
from zoo_models.prediction.images import read_image

SHAPE = (61, 83)
PADDED = (64, 84)
"""The package takes 12 + n * 4 pixels: its period is 2, its shrink 4."""
AGREE = 1e-4
"""Of the standard deviation of the embeddings."""


@pytest.fixture
def odd(folder: Path) -> Path:
    """An image whose size is off the grid."""
    tifffile.imwrite(folder / "odd.tif", discs(SHAPE, 7)[0])
    return folder / "odd.tif"


@pytest.fixture(scope="module")
def core(package: Path) -> Iterator[PredictionPipeline]:
    quiet = bioimageio.spec.ValidationContext(log_warnings=False)
    with zipfile.ZipFile(package) as archive, quiet:
        model = bioimageio.spec.load_model_description(archive, perform_io_checks=True)
        # not entered: core's predict does that, and a second exit would wait for ever
        yield bioimageio.core.create_prediction_pipeline(model, devices=["cpu"])


def one_pass(package: Path, image: Path) -> np.ndarray:
    """Embeddings D(z)yx of an image, which is mirrored beyond its border, in a single tile."""
    model, pixels = Package.load(package), read_image(image).data
    grid = BlockGrid.covering(pixels.shape[1:], model.geometry, tile_limit=4096)
    assert len(grid) == 1
    normal = model.normalisation.apply(pixels)
    return predict_embeddings(model.network, normal, grid, embedding_dim=model.embedding_dim)


# bioimageio.core leaves the image open that it reads; the interpreter says so.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("blocksize", "suffix"),
    [(None, "tif"), (1, "npy"), (2, "tif")],  # tiles of 12 + n * 4 pixels; core takes 0 for 10
    ids=["whole", "n = 1", "n = 2"],
)
def test_predicted_padded_and_cropped_equals_one_exact_pass(
    package: Path, core: PredictionPipeline, odd: Path, blocksize: int | None, suffix: str
) -> None:
    assert run("pad", odd, "--for", package, "-o", ".").code == 0
    predicted = f"predicted.{suffix}"
    bioimageio.core.predict(
        model=core,
        inputs=Path("odd_padded.tif"),
        blocksize_parameter=blocksize,
        save_output_path=predicted,
    )
    outcome = run("crop", predicted, "--pad", "odd_padded.json", "-o", f"cropped.{suffix}")
    assert outcome.code == 0, outcome.err
    found = np.load("cropped.npy")[0] if suffix == "npy" else tifffile.imread("cropped.tif")
    assert found.shape == (4, *SHAPE)
    assert found.dtype == np.float32

    expected = one_pass(package, Path("odd_padded.tif"))[:, : SHAPE[0], : SHAPE[1]]
    assert np.abs(found - expected).max() <= AGREE * expected.std()
    # ours mirrors at the image's end: the same where the network does not see beyond that
    shrink = Package.load(package).geometry.shrink[0]
    ours = one_pass(package, odd)
    inside = np.abs(found - ours)[:, :-shrink, :-shrink]
    assert inside.max() <= AGREE * ours.std()


def test_without_padding_the_blocks_are_wrong(
    package: Path, core: PredictionPipeline, odd: Path
) -> None:
    pixels = tifffile.imread(odd).astype(np.float32)[None, None]
    members: Any = {"input": Tensor.from_numpy(pixels, dims=("batch", "channel", "y", "x"))}
    sample = Sample(members=members, stat={}, id="odd")
    output = bioimageio.core.predict(model=core, inputs=sample, blocksize_parameter=1)
    (found,) = (tensor.to_numpy()[0] for tensor in output.members.values())
    expected = one_pass(package, odd)
    wrong = np.abs(found - expected).max(axis=0) > 0.1 * expected.std()
    assert wrong.mean() > 0.02


def test_labels_come_back_to_the_image(package: Path, odd: Path) -> None:
    assert run("pad", odd, "--for", package, "-o", ".").code == 0
    labels = np.zeros(PADDED, np.uint16)
    labels[10:20, 30:50] = 700
    labels[50:, 70:] = 2
    tifffile.imwrite("labels.tif", labels)
    outcome = run("crop", "labels.tif", "--pad", "odd_padded.json", "-o", "found.tif")
    assert outcome == Outcome(0, "found.tif  61 x 83 uint16\n", "")
    with tifffile.TiffFile("found.tif") as tiff:
        assert (tiff.is_ome, tiff.series[0].axes) == (True, "YX")
        np.testing.assert_array_equal(tiff.asarray(), labels[:61, :83])


def test_an_image_that_fits_is_told_and_written_unchanged(package: Path, image: Path) -> None:
    outcome = run("pad", image, "--for", package, "-o", "out")
    assert outcome.out == f"out{os.sep}good_padded.tif  48 x 64 fits already\n"
    np.testing.assert_array_equal(tifffile.imread("out/good_padded.tif"), tifffile.imread(image))
    assert (
        run("crop", "out/good_padded.tif", "--pad", "out/good_padded.json", "-o", "o.tif").code == 0
    )
    np.testing.assert_array_equal(tifffile.imread("o.tif"), tifffile.imread(image))


def test_a_record_says_what_was_padded(package: Path, odd: Path) -> None:
    outcome = run("pad", odd, "--for", package, "-o", "out")
    assert outcome.out == f"out{os.sep}odd_padded.tif  61 x 83 padded to 64 x 84\n"
    record = json.loads(Path("out/odd_padded.json").read_text())
    assert record == {
        "spoco_zoo_padding": 1,
        "source": "odd.tif",
        "model": "Discs on a slope 2D 0.2.0",
        "axes": "yx",
        "shape": [61, 83],
        "padded_shape": [64, 84],
        "voxel_size_um": None,
    }
    assert sorted(os.listdir("out")) == ["odd_padded.json", "odd_padded.tif"]


@bad_images
def test_a_bad_image_is_refused(package: Path, folder: Path, spoil: Callable[[Path], None]) -> None:
    spoil(folder / "bad.tif")
    line = refused("pad", "bad.tif", "--for", package, "-o", "out", unchanged=folder)
    assert_says(line, "bad.tif", *BAD_IMAGES[spoil])


def test_the_good_images_are_padded_and_the_bad_one_has_its_line(
    package: Path, odd: Path, folder: Path
) -> None:
    (folder / "bad.tif").write_text("no image")
    outcome = run("pad", "bad.tif", odd, "--for", package, "-o", "out")
    assert outcome.code == 2
    assert_says(outcome.err, "error: bad.tif", "cannot be read")
    assert outcome.out.count("\n") == 1
    assert sorted(os.listdir("out")) == ["odd_padded.json", "odd_padded.tif"]


@pytest.mark.parametrize("present", ["odd_padded.tif", "odd_padded.json"])
def test_earlier_files_are_replaced_only_when_asked(
    package: Path, odd: Path, folder: Path, present: str
) -> None:
    (folder / present).write_text("an earlier result")
    line = refused("pad", odd, "--for", package, "-o", ".", unchanged=folder)
    assert_says(line, present, "exists already", "--overwrite")
    assert run("pad", odd, "--for", package, "-o", ".", "--overwrite").code == 0
    assert tifffile.imread("odd_padded.tif").shape == PADDED
    crop = ("crop", "odd_padded.tif", "--pad", "odd_padded.json", "-o", "back.tif")
    (folder / "back.tif").write_text("an earlier result")
    assert_says(refused(*crop, unchanged=folder), "back.tif", "exists already", "--overwrite")
    assert run(*crop, "--overwrite").code == 0
    np.testing.assert_array_equal(tifffile.imread("back.tif"), tifffile.imread(odd))


def test_images_of_one_name_are_refused(package: Path, odd: Path, folder: Path) -> None:
    (folder / "more").mkdir()
    tifffile.imwrite(folder / "more" / "odd.tif", GREY)
    line = refused("pad", odd, "more", "--for", package, "-o", "out", unchanged=folder)
    assert_says(line, "odd.tif", "different")


@pytest.mark.parametrize("command", ["pad", "crop"])
def test_a_file_in_the_way_of_the_output_is_refused(
    chain: Chain, odd: Path, folder: Path, command: str
) -> None:
    assert run("pad", odd, "--for", chain.package, "-o", ".").code == 0
    (folder / "taken").write_text("a file")
    arguments = {
        "pad": (odd, "--for", chain.package, "-o", "taken"),
        "crop": ("odd_padded.tif", "--pad", "odd_padded.json", "-o", "taken/back.tif"),
    }
    line = refused(command, *arguments[command], unchanged=folder)
    assert_says(line, "taken", "found a file", "expected a folder", "--out")


def test_what_is_no_model_is_refused(odd: Path, folder: Path) -> None:
    line = refused("pad", odd, "--for", odd, "-o", "out", unchanged=folder)
    assert_says(line, "odd.tif", "not a complete zip", "expected a bioimage.io model")


@pytest.mark.parametrize(
    ("predicted", "record", "out", "words"),
    [
        ("odd_padded.tif", "no.json", "o.tif", ("no.json", "no such file", "spoco-zoo pad")),
        ("odd_padded.tif", "odd_padded.tif", "o.tif", ("not a record of padding", "again")),
        ("odd.tif", "odd_padded.json", "o.tif", ("61 x 83 (cropped already?)", "64 x 84")),
        ("odd_padded.tif", "odd_padded.json", "o.png", ("o.png", ".tif or .npy")),
        ("od_padded.tif", "odd_padded.json", "o.tif", ("no such", "did you mean odd_padded.tif")),
    ],
)
def test_a_crop_that_cannot_be_is_refused(
    package: Path, odd: Path, folder: Path, predicted: str, record: str, out: str, words: tuple[str]
) -> None:
    assert run("pad", odd, "--for", package, "-o", ".").code == 0
    before = contents(folder)
    assert_says(refused("crop", predicted, "--pad", record, "-o", out, unchanged=folder), *words)
    assert contents(folder) == before
