"""Test tensors are a rich piece of the real image, and show a consumer's mistakes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from packager.card import Card
from packager.kinds import product
from packager.sample_tensors import make_pair, read_sample, richest_crop, tensor_shape, write_tiff
from zoo_models.checkpoint import Checkpoint
from zoo_models.errors import ImageError


def test_tensors_are_larger_than_a_tile_and_not_square(
    checkpoint: Checkpoint, make: Callable[..., Checkpoint]
) -> None:
    assert tensor_shape(product(checkpoint, ("grey",)).axes) == (48 + 3 * 8, 48 + 5 * 8)
    volume = tensor_shape(product(make(ndim=3, levels=1), ("grey",)).axes)
    assert len(set(volume)) == 3


def test_the_richest_piece_is_found_on_the_grid() -> None:
    image = np.zeros((1, 64, 80), np.float32)
    image[:, 24:56, 40:72] = np.random.default_rng(0).random((1, 32, 32), np.float32)
    crop = richest_crop(image, (32, 32), (4, 4))
    np.testing.assert_array_equal(crop, image[:, 24:56, 40:72])


def test_a_small_image_is_mirrored_to_the_size() -> None:
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    crop = richest_crop(image, (6, 4), (4, 4))
    np.testing.assert_array_equal(crop, np.pad(image, ((0, 0), (0, 3), (0, 0)), mode="symmetric"))


def test_the_pair_is_what_the_network_answers_to_the_raw_image(
    checkpoint: Checkpoint, card: Card
) -> None:
    image = read_sample(card.sample.file, checkpoint)
    pair = make_pair(checkpoint, product(checkpoint, ("grey",)), image)
    with torch.no_grad():
        expected = checkpoint.network()(torch.from_numpy(pair.taken) / 255 - 0.25).numpy()
    np.testing.assert_allclose(pair.given, expected, atol=1e-4)
    assert pair.taken.max() > 1  # raw, not normalised
    assert pair.given.max() > 0.1  # newer validators refuse weaker test outputs


def test_a_sample_of_another_kind_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, np.zeros((7, 40, 40), np.uint8), photometric="minisblack")
    with pytest.raises(ImageError, match="3D stack"):
        read_sample(path, checkpoint)


def test_a_tiff_keeps_every_value_and_repeats_its_bytes(tmp_path: Path) -> None:
    tensor = np.random.default_rng(0).normal(size=(1, 3, 20, 30)).astype(np.float32)
    for name in ("a.tif", "b.tif"):
        write_tiff(tmp_path / name, tensor)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), tensor[0])
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
