"""The shipped network: its size contract, its equivariance, and its exported forms."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch

from zoo_models.architectures.unet_valid import (
    LocalNormalisation,
    SameSizeUNet,
    UNetValid,
    WindowSum,
)

SMALL: dict[str, Any] = {"embedding_dim": 3, "width": 4, "max_width": 8}
VARIANTS: list[dict[str, Any]] = [
    {"levels": 2, "norm": "batch", "upsampling": "learnt"},
    {"levels": 2, "norm": "none", "upsampling": "nearest", "convolutions": 1},
    {"levels": 1, "factor": 3, "local_radius": 3},
    {"ndim": 3, "levels": 1, "factor": [1, 2, 2], "convolutions": 1},
]


def network_of(variant: dict[str, Any]) -> SameSizeUNet:
    torch.manual_seed(0)
    network = SameSizeUNet(**SMALL, **variant)
    network.train()
    for _ in range(3):  # batch norm statistics that are not their initial ones
        network(torch.randn(2, 1, *smallest(network)))
    return network.eval()


def smallest(network: SameSizeUNet) -> list[int]:
    return [2 * h + 2 * p for h, p in zip(network.halo, network.valid.period, strict=True)]


def larger(network: SameSizeUNet) -> list[int]:
    return [
        n + (i + 1) * p
        for i, (n, p) in enumerate(zip(smallest(network), network.valid.period, strict=True))
    ]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_output_has_the_size_of_the_input_and_an_empty_margin(variant: dict[str, Any]) -> None:
    network = network_of(variant)
    x = torch.randn(1, 1, *larger(network))
    with torch.no_grad():
        y = network(x)
    assert y.shape == (1, 3, *x.shape[2:])
    inside = tuple(slice(h, n - h) for h, n in zip(network.halo, x.shape[2:], strict=True))
    assert (y[0][:, *inside] != 0).all()
    margin = y.clone()
    margin[0][:, *inside] = 0
    assert not margin.any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_shifts_by_the_period_commute_and_others_do_not(variant: dict[str, Any]) -> None:
    network = network_of(variant)
    period, size = network.valid.period[-1], smallest(network)
    wide = torch.randn(1, 1, *size[:-1], size[-1] + 2 * period)
    with torch.no_grad():
        views = [network(wide[..., k : k + size[-1]]) for k in range(period + 1)]
    halo = network.halo[-1]
    rows = (0, slice(None), *(slice(h, h + 1) for h in network.halo[:-1]))
    columns = slice(halo + period, halo + 2 * period)
    here = views[0][*rows, columns]
    assert torch.allclose(here, views[period][*rows, halo : halo + period], atol=1e-5)
    if period > 1:
        shifted = views[1][*rows, halo + period - 1 : halo + 2 * period - 1]
        assert not torch.allclose(here, shifted, atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_traced_network_is_right_at_sizes_it_was_not_traced_at(variant: dict[str, Any]) -> None:
    network = network_of(variant)
    traced = torch.jit.trace(network, torch.randn(1, 1, *smallest(network)))
    x = torch.randn(2, 1, *larger(network))
    with torch.no_grad():
        assert torch.allclose(traced(x), network(x), atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_network_survives_saving(variant: dict[str, Any]) -> None:
    network = network_of(variant)
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(network), file)
    file.seek(0)
    scripted = torch.jit.load(file)
    x = torch.randn(1, 1, *larger(network))
    with torch.no_grad():
        assert torch.allclose(scripted(x), network(x), atol=1e-6)


@pytest.mark.parametrize("shape", [(20, 17), (9, 12, 11)])
def test_local_normalisation_is_what_numpy_computes_window_by_window(
    shape: tuple[int, ...],
) -> None:
    radius = [2, 3] if len(shape) == 2 else [1, 2, 2]
    rng = np.random.default_rng(0)
    image = rng.gamma(2.0, 5.0, shape)
    expected = np.empty([n - 2 * r for n, r in zip(shape, radius, strict=True)])
    for place in np.ndindex(*expected.shape):
        box = tuple(slice(p, p + 2 * r + 1) for p, r in zip(place, radius, strict=True))
        centre = tuple(p + r for p, r in zip(place, radius, strict=True))
        mean, std = image[box].mean(), image[box].std()
        expected[place] = (image[centre] - mean) / (std + 0.1 * mean + 0.5)
    layer = LocalNormalisation(radius, 0.1, 0.5)
    got = layer(torch.from_numpy(image[None, None]).float())[0, 0].numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("window", [1, 3, 5, 7, 11, 49, 65])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_window_sum_by_doubling_is_the_sum_of_the_window(window: int, axis: int) -> None:
    image = np.random.default_rng(window).integers(0, 100, (70, 69, 68)).astype(np.float32)
    expected = np.apply_along_axis(np.convolve, axis, image, np.ones(window), "valid")
    got = WindowSum(window, axis, 3)(torch.from_numpy(image)[None, None])[0, 0].numpy()
    np.testing.assert_array_equal(got, expected)


def test_a_window_sum_has_the_same_bits_wherever_the_tile_begins() -> None:
    image = torch.rand(1, 1, 90, 70)
    sums = WindowSum(49, 0, 2)
    whole = sums(image)
    for begin in range(30):
        assert torch.equal(sums(image[:, :, begin:]), whole[:, :, begin:])


def test_local_normalisation_cancels_a_gain() -> None:
    image = torch.rand(1, 1, 40, 40) + 0.5
    layer = LocalNormalisation([8, 8], 0.1, 0.0)
    assert torch.allclose(layer(image), layer(image * 50), atol=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ndim": 4},
        {"norm": "group"},
        {"upsampling": "bilinear"},
        {"convolutions": 3},
        {"kernel": 4},
    ],
)
def test_what_cannot_tile_or_is_unknown_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        UNetValid(**wrong)
