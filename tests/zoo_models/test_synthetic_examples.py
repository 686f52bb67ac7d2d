"""The synthetic examples can be made again, and look like what their models take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from zoo_models.synthetic_examples import Labels, cells_yx, nuclei_zyx, write


@pytest.fixture(scope="module", params=[nuclei_zyx, cells_yx], ids=lambda make: make.__name__)
def made(request: pytest.FixtureRequest) -> tuple[np.ndarray, Labels]:
    image, labels = request.param()
    return image, labels


def test_objects_are_brighter_or_darker_than_what_is_around(
    made: tuple[np.ndarray, Labels],
) -> None:
    image, labels = made
    assert image.shape == labels.shape
    assert np.array_equal(np.unique(labels), np.arange(labels.max() + 1))
    inside, outside = image[labels > 0].astype(float), image[labels == 0].astype(float)
    assert abs(inside.mean() - outside.mean()) > 0.1 * outside.std()


def test_an_example_is_written_the_same_every_time(
    made: tuple[np.ndarray, Labels], tmp_path: Path
) -> None:
    for folder in ("one", "two"):
        write("model", *made, root=tmp_path / folder)
    one, two = (
        (tmp_path / folder / "model" / "example" / "image.tif").read_bytes()
        for folder in ("one", "two")
    )
    assert one == two
    written = tifffile.imread(tmp_path / "one" / "model" / "example" / "labels.tif")
    assert np.array_equal(written, made[1])
