"""Certify a package: what each consumer makes of the exported weights, measured, not promised.

Every weight file is run under every consumer's placement on real images that tell their position,
and compared with one pass over the whole image, padded as that consumer pads it. Along one axis,
with k pixels kept of a tile of T, and P the period::

    on the grid      nk + 2P          |--- k ---|--- k ---|2P|    n: 2 or more
    half on it       nk + P           |--- k ---|--- k ---|P|     ilastik re-centres by P / 2
    off the grid     nk + 3           |--- k ---|--- k ---|3|     the last tile is shifted
    one small tile   about T / 3      |-----|

Exact means that no value differs by more than 1e-4 standard deviations of the whole pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from packager.certificate import Certificate, Trial, Verdict, on_grid
from packager.consumers import core, ilastik, jdll
from packager.consumers.placement import DeclaredAxis, Placement, Refusal
from packager.consumers.stitch import Run, read_padded, stitch
from packager.kinds import Product, Target
from packager.sample_tensors import TENSORS
from packager.weights import WEIGHTS, WeightFormat, runner
from zoo_models.checkpoint import Normalisation
from zoo_models.errors import ExportError
from zoo_models.geometry import Box

NOISE = 0.1
"""Noise on test images, in standard deviations of the image."""

CONSUMERS: dict[str, tuple[Target, tuple[WeightFormat, ...]]] = {
    core.NAME: ("core", ("torchscript", "onnx")),
    ilastik.NAME: ("ilastik", ("torchscript",)),
    jdll.NAME: ("fiji", ("torchscript",)),
}
"""Who is certified, under which name of `--for`, and the weight files that it runs."""


def certify(product: Product, folder: Path, normalisation: Normalisation) -> Certificate:
    """Run the weight files in `folder` as every consumer would, and compare with one pass."""
    constants = normalisation if product.takes_image else Normalisation()
    runs: dict[WeightFormat, Run] = {
        form: _raw_run(folder / WEIGHTS[form], constants)
        for form in product.formats
        if form != "pytorch_state_dict"
    }
    verdicts = []
    image = partial(_image, product, folder)
    for name in CONSUMERS:
        trials = tuple(_trials(product, name, runs, image))
        verdicts.append(Verdict(name, _grid(product, trials), trials))
    names = ("spoco-zoo", "torch", "onnxruntime", "bioimageio.core")
    return Certificate(tuple(verdicts), {n: version(n) for n in names})


def _image(product: Product, folder: Path, size: tuple[int, ...]) -> NDArray[np.float32]:
    """The package's test tensor mirrored to `size`, with noise, so that no two places look alike.

    A trained network answers noise alone with background, which looks the same in every tile.
    """
    real: NDArray[np.float32] = np.load(folder / TENSORS["test_input"])[0]
    noise = position_rich(size, channels=len(product.takes.channels))
    strength = NOISE * real.std() / noise.std()
    mirrored = read_padded(real, Box.of_shape(size), "symmetric")
    return np.asarray(mirrored + strength * (noise - noise.mean()), np.float32)


def _trials(
    product: Product,
    consumer: str,
    runs: Mapping[WeightFormat, Run],
    image: Callable[[tuple[int, ...]], NDArray[np.float32]],
) -> Iterator[Trial]:
    """All sizes; the first one, on the grid, in every weight file and with two tile sizes."""
    _, formats = CONSUMERS[consumer]
    for number, size in enumerate(_sizes(product, consumer)):
        for form in [f for f in formats if f in runs][: None if number == 0 else 1]:
            expected: dict[str, NDArray[np.float32]] = {}
            for placement in _placements(product, consumer, size, tiles=2 if number == 0 else 1):
                yield _try(product, placement, (form, runs[form]), image(size), expected)


def expect_promised(
    certificate: Certificate, product: Product, target: Target | None = None
) -> None:
    """Refuse a package that a consumer would tile wrongly although its kind promises otherwise.

    Kinds that are tiled promise all consumers, or `target` alone when made for it; the others
    promise one pass in core and JDLL. ilastik may refuse large 3D tiles by its message limit.

    Raises:
        ExportError: a promise is broken, with the worst trial.
    """
    broken = []
    for verdict in certificate.verdicts:
        short = CONSUMERS[verdict.consumer][0]
        if (target is not None and short != target) or (product.one_pass and short == "ilastik"):
            continue
        if verdict.grid:
            continue
        if target is None and all("message" in t.refusal for t in verdict.trials):
            continue
        worst = max(verdict.trials, key=lambda t: (not t.refusal, t.difference))
        size = "x".join(map(str, worst.size))
        told = worst.refusal or f"differs by {worst.difference:.2g} standard deviations"
        broken.append(f"{verdict.consumer} on an image of {size}: {told}")
    if broken:
        raise ExportError(
            f"Tiles would show, no package was kept: {'; '.join(broken)}. Either the declaration "
            "leaves the network's grid, or the network sees more than its surroundings, as with a "
            "group or instance norm: train with norm 'batch' or 'none'."
        )


def _raw_run(file: Path, constants: Normalisation) -> Run:
    answer: Callable[[NDArray[np.float32]], NDArray[np.float32]] = runner(file)
    return lambda raw: np.asarray(answer(constants.apply(raw)[None])[0], np.float32)


def _try(
    product: Product,
    placement: Placement | Refusal,
    form: tuple[WeightFormat, Run],
    image: NDArray[np.float32],
    expected: dict[str, NDArray[np.float32]],
) -> Trial:
    """`expected`: the passes over the whole image that were made before, by padding."""
    (name, run), size = form, image.shape[1:]
    if isinstance(placement, Refusal):
        return Trial(size, name, 0, math.inf, f"{placement.how}: {placement.reason}")
    try:
        stitched = stitch(run, image, placement)
        if placement.padding not in expected:
            expected[placement.padding] = _whole(product, run, image, placement)
        whole = expected[placement.padding]
    except Exception as error:  # each runtime raises its own for a size that it cannot take
        reason = f"{type(error).__name__}: the network does not take a tile of this size"
        return Trial(size, name, 0, math.inf, f"fails: {reason}")
    gap = np.abs(stitched.output - whole).max() / max(float(whole.std()), 1e-12)
    failed = bool(stitched.failed) or not np.isfinite(gap)
    return Trial(size, name, len(placement), math.inf if failed else float(gap))


def _placements(
    product: Product, consumer: str, size: tuple[int, ...], *, tiles: int
) -> Iterator[Placement | Refusal]:
    """The consumer's placements; with small tiles, so that images of several are affordable.

    Two tile sizes, one step apart, show a step that leaves the grid. What JDLL refuses with its own
    choice of tile, no user of it can run.
    """
    axes = product.axes
    small = [_tile(axis, consumer) for axis in axes]
    larger = [t + a.step for a, t in zip(axes, small, strict=True)]
    sizes = [small, larger][: 1 if small == larger or product.one_pass else tiles]
    channels = len(product.gives.channels)
    if consumer == jdll.NAME:
        default = jdll.place(axes, size, output_channels=channels)
        yield default
        if not product.one_pass and axes[0].step and isinstance(default, Placement):
            yield from (jdll.place(axes, size, tile=tile) for tile in sizes)
    elif consumer == ilastik.NAME:
        for tile in sizes:
            yield ilastik.place(axes, size, target=max(tile), channels=channels)
    else:
        yield core.place_whole(axes, size)
        for tile in sizes if not product.one_pass else []:
            n = [(t - a.minimum) // max(a.step, 1) for a, t in zip(axes, tile, strict=True)]
            yield core.place(axes, size, n=n)


def _tile(axis: DeclaredAxis, consumer: str) -> int:
    """A small tile. Core takes no image smaller than its tile: two kept parts must be as wide."""
    if axis.minimum == 1:
        return 64
    least = 4 * axis.halo if consumer == core.NAME else axis.minimum + axis.step
    missing = max(0, least - axis.minimum)
    return axis.minimum + math.ceil(missing / max(axis.step, 1)) * axis.step


def _whole(
    product: Product, run: Run, image: NDArray[np.float32], placement: Placement
) -> NDArray[np.float32]:
    """One pass over the image, mirrored by the halo and up to the grid as the consumer mirrors.

    image    |-------- S --------|
    read  M--|-------------------|xx--M     S + x and M, the halo or more: multiples of the period
    """
    if product.one_pass:
        return run(image)
    size = image.shape[1:]
    margin = tuple(
        math.ceil(axis.halo / g) * g for axis, g in zip(product.axes, product.grid, strict=True)
    )
    padded = [math.ceil(n / g) * g for n, g in zip(size, product.grid, strict=True)]
    least = [a.minimum - 2 * a.halo if a.step else 1 for a in product.axes]
    stop = tuple(max(n, m) + h for n, m, h in zip(padded, least, margin, strict=True))
    read = Box(tuple(-m for m in margin), stop)
    answer = run(read_padded(image, read, placement.padding))
    return answer[:, *Box.of_shape(size).shift(margin).slices]


def _sizes(product: Product, consumer: str) -> list[tuple[int, ...]]:
    """Image sizes to try; see the figure above. One axis at a time is more than two tiles long."""
    ndim = len(product.axes)
    if product.one_pass:
        return [(40, 83, 150)[-ndim:], (21, 64, 65)[-ndim:]]
    axes, grid = product.axes, product.grid
    tiles = [_tile(axis, consumer) for axis in axes]
    kept = [t - 2 * a.halo for a, t in zip(axes, tiles, strict=True)]
    # JDLL refuses images smaller than a third of a tile, which is at least the halo
    least = [max(a.halo, math.ceil((t + a.step) / 3)) for a, t in zip(axes, tiles, strict=True)]
    full = [
        k * max(2 if a.step else 1, math.ceil(n / k))
        for a, k, n in zip(axes, kept, least, strict=True)
    ]
    rests = [(2 * p, p, 3) for p in grid]  # of the last tile: on the grid, half on it, off it
    recipes = [(1, 0), (0, 1), (1, 2)] if ndim == 2 else [(2, 0), (0, 0), (1, 1), (2, 2)]
    sizes = [
        tuple(
            n + rest[which] * (number == axis)
            for number, (n, rest) in enumerate(zip(full, rests, strict=True))
        )
        for axis, which in recipes
    ]
    small = tuple(math.ceil(n / (2 * p)) * 2 * p for n, p in zip(least, grid, strict=True))
    return [*sizes, small]


def _grid(product: Product, trials: Sequence[Trial]) -> tuple[int, ...]:
    """The finest of 1, P and 2P (per axis) on which every trial that was placed is exact."""
    placed = [t for t in trials if not t.refusal]
    candidates = ((1,) * len(product.grid), product.grid, tuple(2 * p for p in product.grid))
    for grid in candidates:
        tried = [t for t in placed if on_grid(t.size, grid)]
        if tried and all(t.exact for t in tried):
            return grid
    return ()


def position_rich(size: Sequence[int], *, channels: int, seed: int = 0) -> NDArray[np.float32]:
    """An image c(z)yx in 0..255 no two places of which look alike: noise on slopes."""
    rng = np.random.default_rng(seed)
    slopes = np.zeros(tuple(size), np.float32)
    for axis, n in enumerate(size):
        ramp = np.linspace(0, 100 / len(size), n, dtype=np.float32)
        slopes += ramp.reshape([-1 if a == axis else 1 for a in range(len(size))])
    noise = rng.uniform(0, 155, (channels, *size)).astype(np.float32)
    return noise + slopes
