"""What probing measures against what a walk through the layers says, for networks of every kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from zoo_models.architectures.unet_valid import SameSizeUNet, UNetValid
from zoo_models.errors import InputError
from zoo_models.geometry import ValidUNetAxis
from zoo_models.receptive_field import Probe, ProbedAxis, Run, ValidSizes, probe

Array = NDArray[np.float32]
Depends = NDArray[np.bool_]
"""Which output pixel (row) depends on which input pixel (column) of one axis."""

ANY_SIZE = [ValidSizes(1, 1)] * 2
EVEN = [ValidSizes(16, 2)] * 2


def awake(network: nn.Module) -> nn.Module:
    """Random weights under which ReLU networks keep the spread of their values, layer by layer."""
    torch.manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            nn.init.normal_(layer.weight, 0, (2 / layer.weight[0].numel()) ** 0.5)
        if isinstance(layer, nn.ConvTranspose2d | nn.ConvTranspose3d):
            nn.init.normal_(layer.weight, 0, (2 / len(layer.weight)) ** 0.5)
    return network.eval()


def runner(network: nn.Module) -> Run:
    def run(image: Array) -> Array:
        with torch.inference_mode():
            answer: Array = network(torch.from_numpy(image)[None])[0].numpy()
        return answer

    return run


def probed(
    network: nn.Module | Run, sizes: list[ValidSizes], *, budget: int = 100_000, channels: int = 1
) -> Probe:
    run = runner(awake(network)) if isinstance(network, nn.Module) else network
    return probe(run, channels=channels, sizes=sizes, budget_pixels=budget)


# --- The walk: integers only, no network -----------------------------------------------------


def convolved(depends: Depends, kernel: int) -> Depends:
    rows = len(depends) - kernel + 1
    shifted = [depends[k : k + rows] for k in range(kernel)]
    return np.asarray(np.any(shifted, axis=0))


def pooled(depends: Depends, factor: int) -> Depends:
    return np.asarray(depends.reshape(-1, factor, depends.shape[1]).any(axis=1))


def walked(axis: ValidUNetAxis, size: int) -> Depends:
    """A valid U-Net, layer by layer along one axis."""

    def block(depends: Depends) -> Depends:
        for _ in range(axis.convolutions):
            depends = convolved(depends, axis.kernel)
        return depends

    depends = block(convolved(np.eye(size, dtype=bool), 2 * axis.context + 1))
    skips = []
    for _ in range(axis.levels):
        skips.append(depends)
        depends = block(pooled(depends, axis.factor))
    for skip in reversed(skips):
        enlarged = np.repeat(depends, axis.factor, axis=0)
        crop = (len(skip) - len(enlarged)) // 2
        depends = block(skip[crop : crop + len(enlarged)] | enlarged)
    return depends


def expected(axis: ValidUNetAxis, *, same_size: bool) -> ProbedAxis:
    """Reach per phase as the walk has it, with a few periods of output."""
    period = axis.period
    if same_size:
        size = 2 * axis.halo + 2 * period
        depends = np.zeros((size, size), dtype=bool)
        inner = walked(axis, size - 2 * axis.crop_before)
        kept = inner[axis.crop_after : len(inner) - axis.crop_after]
        inputs = slice(axis.crop_before, size - axis.crop_before)
        depends[axis.halo : size - axis.halo, inputs] = kept
        shrink = 0
    else:
        depends = walked(axis, axis.smallest_input + 2 * period)
        shrink = axis.shrink
    before, after = [-(10**6)] * period, [-(10**6)] * period
    for output, row in enumerate(depends):
        if row.any():
            inputs_of = np.flatnonzero(row)
            place, phase = output + shrink, output % period
            before[phase] = max(before[phase], int(place - inputs_of[0]))
            after[phase] = max(after[phase], int(inputs_of[-1] - place))
    return ProbedAxis(
        before=max(before),
        after=max(after),
        complete=True,
        period=period,
        scale=Fraction(1),
        margin=Fraction(-2 * shrink),
        before_at=tuple(before),
        after_at=tuple(after),
    )


def axes_of(config: dict[str, Any]) -> list[ValidUNetAxis]:
    return [
        ValidUNetAxis(kernel, config["convolutions"], config["levels"], factor, radius)
        for kernel, factor, radius in zip(
            config["kernel"], config["factor"], config["local_radius"], strict=True
        )
    ]


def sizes_of(axes: list[ValidUNetAxis], *, same_size: bool) -> list[ValidSizes]:
    if same_size:
        return [ValidSizes(2 * axis.halo + 2 * axis.period, axis.period) for axis in axes]
    return [ValidSizes(axis.smallest_input, axis.period) for axis in axes]


def check_unet(
    config: dict[str, Any], *, same_size: bool, budget: int, weaken: float = 1.0
) -> None:
    axes = axes_of(config)
    kind = SameSizeUNet if same_size else UNetValid
    network = kind(ndim=len(axes), width=4, embedding_dim=3, norm="none", **config)
    awake(network)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.ConvTranspose2d):
                layer.weight *= weaken
    sizes = sizes_of(axes, same_size=same_size)
    measured = probed(runner(network), sizes, budget=budget)
    assert measured.axes == tuple(expected(axis, same_size=same_size) for axis in axes)
    assert not measured.statistics


two = st.tuples
configs = st.fixed_dictionaries(
    {
        "levels": st.integers(0, 2),
        "factor": two(st.sampled_from([1, 2, 3]), st.sampled_from([2, 3])),
        "kernel": two(st.sampled_from([1, 3, 5]), st.sampled_from([1, 3])),
        "convolutions": st.integers(1, 2),
        "upsampling": st.sampled_from(["learnt", "nearest"]),
        "local_radius": two(st.sampled_from([0, 3]), st.just(0)),
    }
)


# --- U-Nets ------------------------------------------------------------------------------------


@settings(max_examples=6)
@given(config=configs, same_size=st.booleans())
def test_reach_and_period_of_a_unet_are_those_of_a_walk_through_its_layers(
    config: dict[str, Any], same_size: bool
) -> None:
    check_unet(config, same_size=same_size, budget=200_000)


@pytest.mark.parametrize(("same_size", "weaken"), [(False, 1.0), (True, 0.1)])
def test_three_poolings_are_seen_even_if_the_deep_levels_hardly_count(
    same_size: bool, weaken: float
) -> None:
    config = {
        "levels": 3, "factor": (2, 2), "kernel": (3, 3), "convolutions": 2,
        "upsampling": "learnt", "local_radius": (0, 0),
    }  # fmt: skip
    check_unet(config, same_size=same_size, budget=200_000, weaken=weaken)


def test_a_volume_that_is_not_pooled_along_z() -> None:
    config = {
        "levels": 1, "factor": (1, 2, 2), "kernel": (1, 3, 3), "convolutions": 1,
        "upsampling": "nearest", "local_radius": (0, 0, 0),
    }  # fmt: skip
    check_unet(config, same_size=False, budget=60_000)


class PaddedUNet(nn.Module):
    """A U-Net of zero-padded 3x3 convolutions, one per block, with or without a norm."""

    def __init__(self, levels: int, norm: Callable[[int], nn.Module] | None = None) -> None:
        super().__init__()

        def block(channels: int) -> nn.Sequential:
            layers = [nn.Conv2d(channels, 6, 3, padding=1), norm(6) if norm else nn.Identity()]
            return nn.Sequential(*layers, nn.ReLU())

        self.down = nn.ModuleList(block(6 if i else 1) for i in range(levels + 1))
        self.up = nn.ModuleList(block(12) for _ in range(levels))
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips: list[torch.Tensor] = []
        for block in self.down:
            x = block(nn.functional.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        for block, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            x = block(torch.cat([skip, nn.functional.interpolate(x, scale_factor=2.0)], dim=1))
        out: torch.Tensor = self.head(x)
        return out


def reach_of_padded(levels: int) -> int:
    """Zero padding moves no pixel: the reach is that of the valid network, whose phases it shifts.

    The valid network gives it as the largest over phases, which the shift leaves as it is.
    """
    return expected(ValidUNetAxis(3, 1, levels, 2), same_size=False).before


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_zero_padding_is_not_mistaken_for_a_dependence(levels: int) -> None:
    for axis in probed(PaddedUNet(levels), [ValidSizes(16, 2**levels)] * 2).axes:
        reach = reach_of_padded(levels)
        assert (axis.before, axis.after, axis.complete) == (reach, reach, True)
        assert axis.period == 2**levels


def test_the_sizes_need_not_grow() -> None:
    """A fixed input of 96 pixels: the field and the period show within it."""
    for axis in probed(PaddedUNet(2), [ValidSizes(96, 0)] * 2).axes:
        assert (axis.before, axis.complete, axis.period) == (reach_of_padded(2), True, 4)


@pytest.mark.parametrize("sizes", [ValidSizes(32, 32), ValidSizes(64, 0)])
def test_a_field_larger_than_the_budget_is_at_least_what_was_seen(sizes: ValidSizes) -> None:
    measured = probed(PaddedUNet(5), [sizes] * 2, budget=64 * 64)
    assert not measured.statistics
    for axis in measured.axes:
        assert not axis.complete
        assert 20 <= axis.before <= reach_of_padded(5)
        assert 20 <= axis.after <= reach_of_padded(5)
        assert axis.period is None  # 32, but no pixel is free of the padding


# --- Statistics ----------------------------------------------------------------------------------


class Gated(nn.Module):
    """Convolutions whose channels are weighted by means over the whole image."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.body(x))
        return x * torch.sigmoid(x.mean(dim=(2, 3), keepdim=True))


def stretched(image: Array) -> Array:
    return (image - image.min()) / (image.max() - image.min())


@pytest.mark.parametrize(
    ("network", "sizes"),
    [
        (PaddedUNet(2, lambda channels: nn.GroupNorm(2, channels)), ValidSizes(16, 4)),
        (PaddedUNet(3, nn.InstanceNorm2d), ValidSizes(16, 8)),
        (PaddedUNet(2, nn.InstanceNorm2d), ValidSizes(128, 0)),
        (Gated(), ValidSizes(1, 1)),
        (stretched, ValidSizes(1, 1)),
    ],
    ids=["group norm", "instance norm", "instance norm, fixed size", "global pooling", "min-max"],
)
def test_a_statistic_of_the_whole_image_is_told_from_a_field(
    network: nn.Module | Run, sizes: ValidSizes
) -> None:
    measured = probed(network, [sizes] * 2)
    assert measured.statistics
    for axis in measured.axes:
        assert not axis.complete
        assert axis.period is None


def test_a_batch_norm_in_evaluation_is_no_statistic() -> None:
    measured = probed(PaddedUNet(1, nn.BatchNorm2d), [ValidSizes(16, 2)] * 2)
    assert not measured.statistics
    assert measured.axes[0].complete


# --- Single layers, reach worked by hand ---------------------------------------------------------


def hand(before: int, after: int, period: int, scale: Fraction = Fraction(1)) -> tuple[Any, ...]:
    return (before, after, True, period, scale)


CAUSAL = nn.Sequential(nn.ZeroPad2d((4, 0, 4, 0)), nn.Conv2d(1, 3, 5))
CROPPED = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ZeroPad2d((-6, 0, -6, 0)))
DILATED = nn.Sequential(nn.Conv2d(1, 3, 3, padding=25, dilation=25), nn.ReLU())
STACK = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 7, padding=3))
ENCODER = nn.Sequential(nn.Conv2d(1, 4, 3, 2, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
UPSAMPLER = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(4, 2, 2, 2))


@pytest.mark.parametrize(
    ("network", "sizes", "values"),
    [
        (nn.Conv2d(1, 3, 1), ANY_SIZE, hand(0, 0, 1)),
        (STACK, ANY_SIZE, hand(4, 4, 1)),
        (DILATED, ANY_SIZE, hand(25, 25, 1)),
        (CAUSAL, ANY_SIZE, hand(4, 0, 1)),
        # output o depends on o + 5 .. o + 7, and its own place is o + 3
        (CROPPED, [ValidSizes(8, 1)] * 2, hand(-2, 4, 1)),
        # output o depends on 2o - 1 .. 2o + 1, and its own place is 2o .. 2o + 1
        (ENCODER, EVEN, hand(1, 0, 2, Fraction(1, 2))),
        (ENCODER, [ValidSizes(64, 0)] * 2, hand(1, 0, 2, Fraction(1, 2))),
        (UPSAMPLER, ANY_SIZE, hand(1, 1, 1, Fraction(2))),
        (UPSAMPLER, [ValidSizes(64, 0)] * 2, hand(1, 1, 1, Fraction(2))),
    ],
)
def test_small_networks_are_measured_as_worked_by_hand(
    network: nn.Module, sizes: list[ValidSizes], values: tuple[Any, ...]
) -> None:
    phases = values[3] * values[4]
    for axis in probed(network, sizes).axes:
        assert (axis.before, axis.after, axis.complete, axis.period, axis.scale) == values
        assert axis.margin == (-6 if network is CROPPED else 0)
        assert len(axis.before_at) == len(axis.after_at) == phases


def test_axes_are_not_mixed_up() -> None:
    network = nn.Conv3d(2, 2, (1, 3, 5), padding=(0, 3, 2), dilation=(1, 3, 1))
    measured = probed(network, [ValidSizes(4, 1)] * 3, budget=40_000, channels=2)
    assert [(axis.before, axis.after) for axis in measured.axes] == [(0, 0), (3, 3), (2, 2)]


# --- What is refused -----------------------------------------------------------------------------


def test_the_same_seed_measures_the_same() -> None:
    one, other = (probed(PaddedUNet(1), EVEN) for _ in range(2))
    assert dataclasses.replace(one, seconds=0.0) == dataclasses.replace(other, seconds=0.0)
    assert one.shape[0] > 2 * one.axes[0].before


@pytest.mark.parametrize(
    ("run", "complaint"),
    [
        (lambda image: np.zeros_like(image), "does not depend on the image"),
        (lambda image: np.log(np.minimum(image, 0.0)), "not finite"),
        (lambda image: np.random.default_rng().normal(image), "deterministic"),
        (lambda image: image[:, :1, :1], "grows with the input"),
        (lambda image: image[0], "expected channels and 2 space axes"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_cannot_be_probed_is_refused(run: Run, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        probed(run, ANY_SIZE)


def test_a_smallest_input_beyond_the_budget_is_refused() -> None:
    with pytest.raises(InputError, match=r"\(64, 64\) has 4096 pixels, the budget is 4000"):
        probed(lambda image: image, [ValidSizes(64, 8)] * 2, budget=4000)


@pytest.mark.parametrize(("minimum", "step"), [(0, 1), (8, -1)])
def test_sizes_that_are_none_are_refused(minimum: int, step: int) -> None:
    with pytest.raises(InputError, match="are none"):
        ValidSizes(minimum, step)
