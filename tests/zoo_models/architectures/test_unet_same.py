"""The same-padded network: what it reads, what it answers, and the halo that hides its padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from zoo_models.architectures.unet_same import UNetSame
from zoo_models.checkpoint import network_axes
from zoo_models.errors import GeometryError
from zoo_models.geometry import TileGeometry, ValidUNetAxis
from zoo_models.prediction.blocks import BlockGrid
from zoo_models.prediction.engine import predict_embeddings
from zoo_models.receptive_field import ProbedAxis, ValidSizes, probe
from zoo_models.same_padding import SamePaddedUNetAxis


def build(**kwargs: Any) -> UNetSame:
    """A small network in eval mode whose values keep their spread from layer to layer."""
    torch.manual_seed(0)
    width = 8 if kwargs.get("norm") == "group" else 4  # its channels come in eights
    network = UNetSame(**{"width": width, "max_width": 8, "embedding_dim": 3, **kwargs})
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            nn.init.normal_(layer.weight, 0, (2 / layer.weight[0].numel()) ** 0.5)
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            nn.init.normal_(layer.running_mean, 0, 0.3)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return network.eval()


def axes_of(**kwargs: Any) -> tuple[SamePaddedUNetAxis, ...]:
    axes = network_axes("unet_same", {"ndim": 2, "factor": 2, "kernel": 3, **kwargs})
    assert all(isinstance(axis, SamePaddedUNetAxis) for axis in axes)
    return axes  # type: ignore[return-value]


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


# --- What it answers ---------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize(
    ("ndim", "factor", "size"), [(2, 2, (8, 12)), (3, [1, 2, 2], (3, 4, 8)), (2, 3, (9, 18))]
)
def test_the_answer_has_the_size_of_the_image(
    norm: str, ndim: int, factor: int | list[int], size: tuple[int, ...]
) -> None:
    network = build(ndim=ndim, factor=factor, levels=2, norm=norm, in_channels=2)
    with torch.no_grad():
        answer = network(noise(2, 2, *size))
    assert answer.shape == (2, 3, *size)
    assert answer.dtype == torch.float32


def test_the_feature_maps_are_those_of_the_published_networks() -> None:
    """Table 6 of the paper: 16 to 512 maps, 5 poolings, on RGB."""
    network = UNetSame(in_channels=3)
    maps = [
        [(c.in_channels, c.out_channels) for c in block if isinstance(c, nn.Conv2d)]
        for block in (*network.encoder, *network.decoder)
    ]
    assert maps == [
        [(3, 8), (8, 16)], [(16, 16), (16, 32)], [(32, 32), (32, 64)], [(64, 64), (64, 128)],
        [(128, 128), (128, 256)], [(256, 256), (256, 512)],
        [(768, 256), (256, 256)], [(384, 128), (128, 128)], [(192, 64), (64, 64)],
        [(96, 32), (32, 32)], [(48, 16), (16, 16)],
    ]  # fmt: skip


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_scripted_and_traced_networks_answer_the_same_at_other_sizes(norm: str) -> None:
    network = build(levels=2, norm=norm)
    traced = torch.jit.trace(network, noise(1, 1, 8, 8))
    scripted = torch.jit.script(network)
    for shape in ((8, 8), (20, 36)):
        x = noise(2, 1, *shape)
        with torch.no_grad():
            expected = network(x)
            for other in (traced, scripted):
                assert torch.allclose(other(x), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ndim": 4}, "expected 2 or 3"),
        ({"kernel": 4}, "expected odd"),
        ({"norm": "instance"}, "'none', 'batch' or 'group'"),
        ({"factor": [2, 2, 2]}, "expected 1 or 2"),
    ],
)
def test_a_network_that_is_none_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNetSame(**wrong)


# --- The halo ----------------------------------------------------------------------------------


def needed(axis: ProbedAxis) -> int:
    """Pixels that a kept part on the grid looks beyond itself, measured phase by phase."""
    before = max(reach - phase for phase, reach in enumerate(axis.before_at))
    after = max(reach - phase for phase, reach in enumerate(reversed(axis.after_at)))
    assert before == after
    return before


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize(
    ("levels", "radius", "halo"), [(1, 8, 8), (2, 22, 24), (3, 46, 48), (4, 94, 96)]
)
def test_the_radius_is_what_probing_measures(
    levels: int, radius: int, halo: int, norm: str
) -> None:
    network = build(levels=levels, norm=norm)
    axes = axes_of(levels=levels)
    measured = measured_axes(network, [ValidSizes(2**levels, 2**levels)] * 2, 200_000)
    for axis, found in zip(axes, measured, strict=True):
        assert (found.period, found.complete) == (2**levels, True)
        assert needed(found) == axis.radius == radius
        assert axis.halo == halo
    assert network.halo == [halo, halo]


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_the_radius_of_a_volume_that_is_pooled_less_along_z_is_what_probing_measures(
    norm: str,
) -> None:
    shape: dict[str, Any] = {"ndim": 3, "levels": 1, "factor": [1, 2, 2], "kernel": [3, 3, 3]}
    axes = axes_of(**shape)
    sizes = [ValidSizes(max(4, a.period), a.period) for a in axes]
    measured = measured_axes(build(**shape, norm=norm), sizes, 20_000)
    assert [needed(found) for found in measured] == [a.radius for a in axes] == [6, 8, 8]
    assert [found.period for found in measured] == [a.period for a in axes] == [1, 2, 2]


def measured_axes(
    network: nn.Module, sizes: list[ValidSizes], budget: int
) -> tuple[ProbedAxis, ...]:
    def run(image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            answer: np.ndarray = network(torch.from_numpy(image)[None])[0].numpy()
        return answer

    return probe(run, channels=1, sizes=sizes, budget_pixels=budget).axes


networks = st.builds(
    SamePaddedUNetAxis,
    kernel=st.sampled_from([1, 3, 5, 7]),
    levels=st.integers(0, 4),
    factor=st.integers(1, 3),
).filter(lambda axis: axis.halo < 300)


@given(axis=networks, beyond=st.integers(0, 5))
def test_the_radius_is_that_of_a_walk_from_a_pixel_down_the_levels_and_up(
    axis: SamePaddedUNetAxis, beyond: int
) -> None:
    """Intervals of pixels instead of distances: first and last pixel that is looked at."""
    first, last = -beyond, 5 * axis.period - 1 + beyond
    reach = axis.kernel - 1
    first, last = first - reach, last + reach
    for _ in range(axis.levels):
        first, last = first // axis.factor - reach, last // axis.factor + reach
    for _ in range(axis.levels):
        first, last = first * axis.factor, last * axis.factor + axis.factor - 1
        first, last = first - reach, last + reach
    assert -first == last - (5 * axis.period - 1) == axis.radius_beyond(beyond)
    if beyond == 0:
        assert axis.halo - axis.period < axis.radius <= axis.halo
        assert axis.halo % axis.period == 0


@given(axis=networks)
def test_shipped_file_and_geometry_agree(axis: SamePaddedUNetAxis) -> None:
    network = UNetSame(
        width=1, max_width=1, levels=axis.levels, factor=axis.factor, kernel=axis.kernel
    )
    assert (network.period[0], network.halo[0]) == (axis.period, axis.halo)


def test_padded_convolutions_look_further_than_valid_ones_shrink() -> None:
    """Their poolings lie on the tile's grid: at two levels this costs a wider halo, 24, not 20."""
    found = {n: (SamePaddedUNetAxis(3, n, 2), ValidUNetAxis(3, 2, n, 2)) for n in range(1, 7)}
    assert [same.radius - valid.shrink for same, valid in found.values()] == [0, 2, 2, 2, 2, 2]
    assert [(same.halo, valid.halo) for same, valid in found.values()][:3] == [
        (8, 8), (24, 20), (48, 48),
    ]  # fmt: skip


def test_axes_that_are_no_network_are_refused() -> None:
    with pytest.raises(GeometryError, match=r"kernel 2 .*levels -1 .*factor 0"):
        SamePaddedUNetAxis(2, -1, 0)


# --- Tiles -------------------------------------------------------------------------------------


def position_coded(shape: tuple[int, ...]) -> np.ndarray:
    """Every pixel tells where it is: waves of co-prime lengths, and noise."""
    grid = np.indices(shape).astype(np.float32)
    waves = sum(np.sin(g * (0.37 + 0.11 * i)) for i, g in enumerate(grid))
    rng = np.random.default_rng(0)
    return np.asarray(waves + rng.normal(size=shape), np.float32)[None]


CASES = [
    ((203, 219), {"levels": 2}),
    ((97, 230), {"levels": 3, "norm": "none"}),
    ((17, 9), {"levels": 2}),
    ((11, 30, 19), {"ndim": 3, "levels": 1, "factor": [1, 2, 2]}),
    ((64, 150), {"levels": 1, "factor": 3}),
]


@pytest.mark.parametrize(("shape", "kwargs"), CASES)
def test_tiles_of_any_size_equal_one_whole_pass(
    shape: tuple[int, ...], kwargs: dict[str, Any]
) -> None:
    """No tiling code makes the whole pass: the image is mirrored by the halo and up to the grid."""
    network = build(**kwargs)
    geometry = TileGeometry.from_network(axes_of(**kwargs))
    image = position_coded(shape)
    margin = [
        (h, h + p - n) for h, p, n in zip(geometry.halo, geometry.padded(shape), shape, strict=True)
    ]
    around = np.pad(image, [(0, 0), *margin], mode="symmetric")
    with torch.no_grad():
        whole = network(torch.from_numpy(around)[None])[0].numpy()
    inner = tuple(slice(h, h + n) for h, n in zip(geometry.halo, shape, strict=True))
    for limit in (1, 4 * max(geometry.minimum)):
        grid = BlockGrid.covering(shape, geometry, tile_limit=limit)
        tiled = predict_embeddings(network, image, grid, embedding_dim=3)
        assert np.abs(tiled - whole[:, *inner]).max() <= 1e-4 * whole.std()


def test_a_halo_one_period_smaller_would_show() -> None:
    """What the halo of the valid network would give: 20 at two levels."""
    network = build(levels=2, norm="none")
    radius = axes_of(levels=2)[0].radius
    x = noise(1, 1, 88, 88)
    with torch.no_grad():
        whole, tile = network(x), network(x[..., 20:])
    difference = (whole[..., 20:] - tile).abs().amax((0, 1, 2))
    assert difference[radius:].max() <= 1e-5
    assert difference[20:radius].max() > 1e-5


def test_a_group_norm_makes_no_tiles_that_agree() -> None:
    network = build(levels=1, norm="group")
    geometry = TileGeometry.from_network(axes_of(levels=1))
    image = position_coded((96, 96))
    small, large = (
        predict_embeddings(
            network,
            image,
            BlockGrid.covering((96, 96), geometry, tile_limit=limit),
            embedding_dim=3,
        )
        for limit in (1, 1000)
    )
    assert np.abs(small - large).max() > 0.1 * large.std()
