"""Foreground and boundary maps say what the embeddings say, in every tile the same."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from packager.graphs.boundaries import REACH, Boundaries, boundaries_graph
from zoo_models.checkpoint import Checkpoint, ClustererSettings, valid_unet_axes
from zoo_models.errors import ExportError

BACKGROUND = [0.5, -1.0, 0.25]
SPREAD = [0.9, -0.2, 0.1, 0.3, 0.5, 0.0, -0.1, 0.4, 1.3]


def with_background(checkpoint: Checkpoint, **more: Any) -> Checkpoint:
    settings = {"background": BACKGROUND, "radius": 1.0, **more}
    clusterer = ClustererSettings("basin_merging", settings)
    return dataclasses.replace(checkpoint, clusterer=clusterer)


def literal(embeddings: np.ndarray, radius: float) -> np.ndarray:
    """Both maps of (D, Y, X), pixel by pixel as the docstring defines them."""
    _, height, width = embeddings.shape
    r = REACH
    maps = np.zeros((2, height - 2 * r, width - 2 * r))
    for y in range(r, height - r):
        for x in range(r, width - r):
            outside = np.linalg.norm(embeddings[:, y, x] - np.array(BACKGROUND))
            steps = [
                np.linalg.norm(
                    embeddings[:, y + o * a, x + o * b] - embeddings[:, y - o * a, x - o * b]
                )
                for o in range(1, r + 1)
                for a, b in ((1, 0), (0, 1))
            ]
            maps[0, y - r, x - r] = np.clip((outside - radius) / 3 + 0.5, 0, 1)
            maps[1, y - r, x - r] = np.clip((max(steps) - 1) / 3, 0, 1)
    return maps


def test_both_maps_are_what_they_are_defined_to_be() -> None:
    embeddings = np.random.default_rng(0).normal(0, 1.2, (3, 9, 11)).astype(np.float32)
    graph = Boundaries(BACKGROUND, ndim=2, radius=2.0, delta_v=0.5, delta_d=2.0)
    found = graph(torch.from_numpy(embeddings)[None])[0].numpy()
    expected = literal(embeddings, 2.0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert expected.std(axis=(1, 2)).min() > 0.05  # the maps do say something


def test_foreground_is_told_by_the_distance_in_units_of_the_spread() -> None:
    embeddings = np.random.default_rng(0).normal(0, 1.2, (3, 9, 11)).astype(np.float32)
    graph = Boundaries(BACKGROUND, ndim=2, radius=2.0, delta_v=0.5, delta_d=2.0, spread=SPREAD)
    found = graph(torch.from_numpy(embeddings)[None])[0].numpy()
    matrix, inner = np.array(SPREAD).reshape(3, 3), embeddings[:, 2:-2, 2:-2]
    moved = np.tensordot(matrix, inner - np.array(BACKGROUND)[:, None, None], axes=1)
    gap = 3 * np.sqrt((np.linalg.svd(matrix)[1] ** 2).mean())
    expected = np.clip((np.linalg.norm(moved, axis=0) - 2) / gap + 0.5, 0, 1)
    np.testing.assert_allclose(found[0], expected, atol=1e-6)
    np.testing.assert_allclose(found[1], literal(embeddings, 2.0)[1], atol=1e-6)


def test_other_units_of_distance_give_the_same_maps() -> None:
    embeddings = torch.randn(1, 3, 7, 8, 9, generator=torch.Generator().manual_seed(0))
    margins: dict[str, Any] = {"ndim": 3, "delta_v": 0.5, "delta_d": 2.0}
    plain = Boundaries(BACKGROUND, radius=2.0, **margins)(embeddings)
    doubled = [2.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 2.0]
    found = Boundaries(BACKGROUND, radius=4.0, spread=doubled, **margins)(embeddings)
    np.testing.assert_allclose(found, plain, atol=1e-6)


def test_a_step_between_two_instances_is_a_boundary_and_the_inside_is_none() -> None:
    embeddings = torch.zeros(1, 3, 9, 9, 20)
    embeddings[:, 0, :, :, 10:] = 4.0
    graph = Boundaries([-9.0, 0.0, 0.0], ndim=3, radius=2.0, delta_v=0.5, delta_d=2.0)
    foreground, boundary = graph(embeddings)[0].numpy()
    assert (foreground == 1).all()
    profile = boundary[2, 2]  # x = 2..17 of the embeddings
    np.testing.assert_array_equal(profile, [0] * 6 + [1] * 4 + [0] * 6)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"levels": 1},
        {"levels": 2},
        {"levels": 3, "local_radius": 1},
        {"levels": 2, "ndim": 3, "width": 2, "factor": [1, 2, 2], "upsampling": "nearest"},
        {"levels": 2, "factor": 3, "kernel": 3, "convolutions": 1},
    ],
)
def test_the_stencil_lies_inside_the_halo(
    make: Callable[..., Checkpoint], kwargs: dict[str, object]
) -> None:
    checkpoint = with_background(make(**kwargs))
    graph, geometry = boundaries_graph(checkpoint)
    for axis, network in zip(geometry.axes, valid_unet_axes(checkpoint.kwargs), strict=True):
        assert axis.halo >= network.crop_before + network.shrink + REACH
        assert axis.halo - network.halo in (0, network.period) or network.period == 1
    size = tuple(m + s for m, s in zip(geometry.minimum, geometry.step, strict=True))
    with torch.no_grad():
        answer = graph(torch.rand(1, 1, *size))[0].numpy()
    assert answer.shape == (2, *size)
    inner = tuple(slice(h, -h) for h in geometry.halo)
    assert 0 <= answer.min() < answer.max() <= 1
    assert (answer[:, *inner] != 0).any()
    answer[:, *inner] = 0
    assert not answer.any()


@pytest.mark.parametrize("spread", [[], SPREAD])
def test_a_pixel_does_not_depend_on_its_tile(
    make: Callable[..., Checkpoint], spread: list[float]
) -> None:
    graph, geometry = boundaries_graph(with_background(make(levels=2), spread=spread))
    (halo, _), (period, _) = geometry.halo, geometry.period
    image = torch.rand(1, 1, 160, 160)
    with torch.no_grad():
        whole = graph(image)[..., halo:-halo, halo:-halo]
        moved = graph(image[..., 7 * period :, 4 * period :])[..., halo:-halo, halo:-halo]
    np.testing.assert_allclose(moved, whole[..., 7 * period :, 4 * period :], atol=1e-5)


def test_a_checkpoint_that_does_not_know_its_background_is_refused(
    checkpoint: Checkpoint,
) -> None:
    with pytest.raises(ExportError, match="background"):
        boundaries_graph(checkpoint)
