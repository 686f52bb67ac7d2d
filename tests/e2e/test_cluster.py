"""Stored embeddings become a label image, with the model's clusterer or another one."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import bioimageio.core
import bioimageio.spec
import numpy as np
import pytest
import tifffile

from tests.e2e.conftest import Chain, Outcome, assert_says, refused, run
from tests.packager.conftest import make_checkpoint
from tests.training.conftest import discs
from zoo_models.checkpoint import Checkpoint, ClustererSettings
from zoo_models.metrics import score
from zoo_models.package import Package
from zoo_models.postprocessing import CLUSTERERS
from zoo_models.prediction.blocks import BlockGrid
from zoo_models.prediction.clustering import COMPARES_TEACHER
from zoo_models.prediction.engine import predict_embeddings
from zoo_models.prediction.images import read_labels

PLACES = {"a": (4.0, 0, 0), "b": (0, 4.0, 0), "c": (0, 0, 4.0)}
SQUARES = {"a": (5, 5), "b": (5, 40), "c": (34, 5)}
"""Three squares of 22 x 22 pixels on a background at 0, like this:   a b
                                                                      c    """
WIDTH = 22


@pytest.fixture
def truth() -> np.ndarray:
    labels = np.zeros((61, 70), np.int32)
    for number, (y, x) in enumerate(SQUARES.values(), start=1):
        labels[y : y + WIDTH, x : x + WIDTH] = number
    return labels


@pytest.fixture
def embeddings(truth: np.ndarray, folder: Path) -> Path:
    """embeddings.npy, D = 3, with the noise of a well-trained network."""
    places = np.array([(0, 0, 0), *PLACES.values()], np.float32)
    noise = np.random.default_rng(0).normal(0, 0.05, (3, *truth.shape))
    np.save(folder / "embeddings.npy", np.moveaxis(places[truth], -1, 0) + noise.astype("f4"))
    return folder / "embeddings.npy"


def cluster(*arguments: object) -> tuple[Outcome, np.ndarray]:
    """What the command said and what it wrote."""
    outcome = run("cluster", *arguments, "-o", "clustered/labels.ome.tif", "--overwrite")
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    labels = tifffile.imread("clustered/labels.ome.tif")
    found = set(np.unique(labels).tolist()) - {0}
    assert labels.dtype == np.uint32
    assert found == set(range(1, len(found) + 1))
    assert f"clustered/labels.ome.tif  {len(found)} instances  " in outcome.out
    assert [path.name for path in Path("clustered").iterdir()] == ["labels.ome.tif"]
    return outcome, labels


def model(folder: Path, place: str, *, delta_d: float = 2.0) -> Path:
    """A checkpoint whose background is where one kind of squares is."""
    clusterer = ClustererSettings(
        "basin_merging", {"min_size": 100, "background": list(PLACES[place])}
    )
    made = replace(make_checkpoint(levels=1), clusterer=clusterer, delta_d=delta_d)
    made.save(folder / f"{place}.safetensors")
    return folder / f"{place}.safetensors"


def together(embeddings: Path) -> Path:
    """The same with a teacher that agrees."""
    network = np.load(embeddings)
    np.save(embeddings, np.concatenate([network, network]))
    return embeddings


@pytest.mark.parametrize("method", CLUSTERERS)
def test_every_method_finds_instances_that_are_plain_to_see(
    method: str, embeddings: Path, truth: np.ndarray
) -> None:
    if method in COMPARES_TEACHER:
        embeddings = together(embeddings)
    outcome, labels = cluster(embeddings, "--method", method, "--min-size", 100)
    assert score(labels, truth).ap50 == 1
    assert outcome.out.endswith(f"s with {method}\n")


def test_the_default_without_a_model_is_the_default_method(
    embeddings: Path, truth: np.ndarray
) -> None:
    outcome, labels = cluster(embeddings)
    assert score(labels, truth).ap50 == 1
    assert "with basin_merging" in outcome.out


def test_stacks_are_clustered_as_stacks(embeddings: Path, truth: np.ndarray) -> None:
    np.save(embeddings, np.repeat(np.load(embeddings)[:, None], 5, axis=1))
    _, labels = cluster(embeddings)
    assert score(labels, np.stack([truth] * 5)).ap50 == 1
    with tifffile.TiffFile("clustered/labels.ome.tif") as tiff:
        assert tiff.series[0].axes == "ZYX"


@pytest.mark.parametrize("method", [m for m in CLUSTERERS if m not in COMPARES_TEACHER])
def test_the_models_background_is_used_by_every_method(
    method: str, embeddings: Path, truth: np.ndarray, folder: Path
) -> None:
    for number, place in enumerate(PLACES, start=1):
        _, labels = cluster(embeddings, "--package", model(folder, place), "--method", method)
        np.testing.assert_array_equal(labels[truth == number], 0)
        assert labels.max() == 3  # the other two, and what is not the background here


def test_the_margins_of_a_model_are_used_and_can_be_set(embeddings: Path, folder: Path) -> None:
    """Everything lies within 100 of the background."""
    wide = model(folder, "a", delta_d=100)
    assert cluster(embeddings, "--package", wide)[1].max() == 0
    assert cluster(embeddings, "--package", wide, "--set", "delta_d=2")[1].max() == 3
    background = ("--set", "background=[4, 0, 0]")
    assert cluster(embeddings, *background)[1].max() == 3
    assert cluster(embeddings, *background, "--delta-d", 100)[1].max() == 0


def test_small_instances_are_dropped_on_request(embeddings: Path) -> None:
    assert cluster(embeddings, "--min-size", WIDTH**2 - 100)[1].max() == 3
    assert cluster(embeddings, "--min-size", WIDTH**2 + 1)[1].max() == 0
    assert cluster(embeddings, "--set", f"min_size={WIDTH**2 + 1}")[1].max() == 0


@pytest.mark.parametrize("method", [m for m in CLUSTERERS if m not in COMPARES_TEACHER])
def test_only_the_foreground_becomes_instances(
    method: str, embeddings: Path, truth: np.ndarray, folder: Path
) -> None:
    tifffile.imwrite(folder / "mask.tif", np.where(truth == 2, 0, truth).astype(np.uint8))
    background = ("--set", "background=[0, 0, 0]")
    mask = ("--mask", "mask.tif")
    for options in (mask, (*mask, *background)):
        _, labels = cluster(embeddings, *options, "--method", method)
        assert score(labels, np.where(truth == 2, 0, truth)).ap50 == 1
        np.testing.assert_array_equal(labels[(truth == 2) | (truth == 0)], 0)


def test_the_help_tells_of_every_method() -> None:
    for command in ("cluster", "predict"):
        out = run(command, "--help").out
        assert all(name in out for name in CLUSTERERS), command


@pytest.fixture(scope="module")
def core(package: Path) -> Iterator[bioimageio.core.PredictionPipeline]:
    quiet = bioimageio.spec.ValidationContext(log_warnings=False)
    with zipfile.ZipFile(package) as archive, quiet:
        described = bioimageio.spec.load_model_description(archive, perform_io_checks=True)
        yield bioimageio.core.create_prediction_pipeline(described, devices=["cpu"])


# bioimageio.core leaves the image open that it reads; the interpreter says so.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("suffix", ["tif", "npy"])
def test_what_bioimageio_predicts_is_clustered_as_predict_does(
    suffix: str, package: Path, core: bioimageio.core.PredictionPipeline, folder: Path
) -> None:
    tifffile.imwrite("image.tif", discs((64, 84), 7)[0])  # a size that the package takes
    stored = f"predicted.{suffix}"
    bioimageio.core.predict(model=core, inputs=Path("image.tif"), save_output_path=stored)
    _, labels = cluster(stored, "--package", package)
    known = Package.load(package)
    values = tifffile.imread(stored) if suffix == "tif" else np.load(stored)
    np.testing.assert_array_equal(labels, known.clusterer(values.reshape(4, 64, 84)))
    assert run("predict", package, "image.tif", "-o", "predicted").code == 0
    predicted = read_labels(folder / "predicted" / "image_labels.ome.tif")
    assert predicted.max() >= 3
    assert score(labels, predicted).ap50 == 1


def predicted_labels(package: Path, image: Path, *options: object) -> np.ndarray:
    outcome = run("predict", package, image, "-o", "out", "--overwrite", *options)
    assert outcome.code == 0, outcome.err
    return read_labels(Path("out", f"{image.stem}_labels.ome.tif"))


def test_settings_and_sizes_change_the_instances(package: Path, image: Path) -> None:
    before = predicted_labels(package, image)
    sizes = np.bincount(before.ravel())[1:]
    limit = int(np.median(sizes)) + 1
    expected = int((sizes >= limit).sum())
    assert 0 < expected < len(sizes)
    assert predicted_labels(package, image, "--min-size", limit).max() == expected
    assert predicted_labels(package, image, "--set", f"min_size={limit}").max() == expected


@pytest.mark.parametrize("method", [m for m in CLUSTERERS if m not in COMPARES_TEACHER])
def test_another_method_labels_as_it_does_on_the_embeddings(
    method: str, chain: Chain, image: Path
) -> None:
    found = predicted_labels(chain.package, image, "--method", method)
    embedded = Checkpoint.load(chain.checkpoint)
    known = Package.load(chain.package)
    assert known.space.dimensions == embedded.embedding_dim
    pixels = tifffile.imread(image).astype(np.float32)[None]
    grid = BlockGrid.covering(pixels.shape[1:], known.geometry, tile_limit=1024)
    normal = known.normalisation.apply(pixels)
    np.save("e.npy", predict_embeddings(known.network, normal, grid, embedding_dim=4))
    _, labels = cluster("e.npy", "--package", chain.checkpoint, "--method", method)
    np.testing.assert_array_equal(found, labels)


def test_masks_in_a_folder_have_the_images_names(package: Path, image: Path, folder: Path) -> None:
    mask = np.zeros((48, 64), np.uint8)
    mask[:, :32] = 255
    (folder / "masks").mkdir()
    tifffile.imwrite(folder / "masks" / "good.ome.tif", mask)
    whole = predicted_labels(package, image)
    for given in ("masks", "masks/good.ome.tif"):
        half = predicted_labels(package, image, "--mask", given)
        assert 0 < half.max() < whole.max()
        np.testing.assert_array_equal(half[mask == 0], 0)


def test_masks_that_do_not_fit_the_images_are_refused(
    package: Path, image: Path, folder: Path
) -> None:
    (folder / "masks").mkdir()
    tifffile.imwrite(folder / "masks" / "other.tif", np.ones((48, 64), np.uint8))
    tifffile.imwrite(folder / "small.tif", np.ones((48, 63), np.uint8))
    shutil.copy(image, folder / "second.tif")
    start = ("predict", package, image)
    line = refused(*start, "-o", "out", "--mask", "masks", unchanged=folder)
    assert_says(line, "masks", "0 masks for good.tif", "expected one")
    line = refused(*start, "-o", "out", "--mask", "small.tif", unchanged=folder)
    assert_says(line, "small.tif", "(48, 63)", "expected (48, 64)")
    line = refused(*start, "second.tif", "-o", "out", "--mask", "small.tif", unchanged=folder)
    assert_says(line, "one mask for 2 images", "name a folder")


def test_a_method_that_compares_a_teacher_needs_a_package_with_one(
    package: Path, image: Path, folder: Path
) -> None:
    for method in set(COMPARES_TEACHER) & set(CLUSTERERS):
        line = refused("predict", package, image, "-o", "out", "--method", method, unchanged=folder)
        assert_says(line, "4 embedding dimensions", "expected 8", "export --teacher")


def refusal(*arguments: object) -> str:
    return refused("cluster", *arguments, "-o", "labels.tif", unchanged=Path())


def test_unknown_methods_models_and_settings(embeddings: Path, package: Path) -> None:
    assert_says(refusal(embeddings, "--method", "magic"), "'magic'", *CLUSTERERS)
    assert_says(refusal(embeddings, "--set", "mage=1"), "'mage'", "delta_v", "min_size")
    assert_says(refusal(embeddings, "--package", "nuclei"), "'nuclei'", "catalog model")
    assert_says(refusal(embeddings, "--package", "no.zip"), "no.zip", "no such file")
    line = refusal(embeddings, "--package", "no.safetensors")
    assert_says(line, "no.safetensors", "no such file")
    line = refusal(embeddings, "--method", "mean_shift", "--delta-v", 0)
    assert_says(line, "delta_v", "above 0")
    assert_says(refusal(embeddings, "--delta-d", 0), "delta_d", "more than 0")
    line = refusal(embeddings, "--package", package, "--delta-v", 1)
    assert_says(line, "--delta-v", "has its own", "--set delta_v")
    assert_says(refusal(embeddings, "--set", "background=[1]"), "embeddings.npy", "background")


def test_embeddings_of_another_model(embeddings: Path, package: Path) -> None:
    line = refusal(embeddings, "--package", package)
    assert_says(line, "embeddings.npy", "3 embedding dimensions", "expected 4")


def test_axes_that_could_be_read_two_ways(embeddings: Path) -> None:
    np.save(embeddings, np.moveaxis(np.load(embeddings), 0, -1))
    assert_says(refusal(embeddings), "(61, 70, 3)", "first or last", "--package")


def test_embeddings_that_are_not_finite(embeddings: Path) -> None:
    values = np.load(embeddings)
    values[:, 3, 4:6] = np.nan
    np.save(embeddings, values)
    for method in set(CLUSTERERS) - set(COMPARES_TEACHER):
        assert_says(refusal(embeddings, "--method", method), "embeddings.npy", "2 ")


def test_a_mask_of_another_shape(embeddings: Path, folder: Path) -> None:
    tifffile.imwrite(folder / "mask.tif", np.ones((61, 71), np.uint8))
    line = refusal(embeddings, "--mask", "mask.tif")
    assert_says(line, "mask.tif", "(61, 71)", "expected (61, 70)")


def test_files_that_are_missing_or_not_embeddings(truth: np.ndarray) -> None:
    assert_says(refusal("no.npy"), "no.npy", "no such file")
    np.save("labels.npy", truth)
    assert_says(refusal("labels.npy"), "labels.npy", "int32", "expected embeddings")


def test_outputs_that_cannot_be_written(embeddings: Path, folder: Path) -> None:
    (folder / "labels.tif").write_text("precious")
    assert_says(refusal(embeddings), "labels.tif", "exists already", "--overwrite")
    line = refused("cluster", embeddings, "-o", "labels.png", unchanged=folder)
    assert_says(line, "labels.png", "expected a name ending in .tif")
    line = refused("cluster", embeddings, "-o", "labels.tif/a.tif", unchanged=folder)
    assert_says(line, "labels.tif", "found a file", "expected a folder")
