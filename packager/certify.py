"""The certificate: what each consumer makes of the exported weights, measured, not promised.

Every weight file is run under every consumer's placement on images that tell their own position,
and compared with one pass over the whole image, padded as that consumer pads it. Along one axis,
with k pixels kept of a tile of T, and P the period::

    fills tiles      3k               |--- k ---|--- k ---|--- k ---|
    on the grid      2k + 2P          |--- k ---|--- k ---|2P|
    half on it       2k + P           |--- k ---|--- k ---|P|     ilastik re-centres by P / 2
    off the grid     2k + 1           |--- k ---|--- k ---|1|     the last tile is shifted
    one small tile   about T / 3      |-----|

Exact means that no value differs by more than 1e-4 standard deviations of the whole pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from packager import weights
from packager.certificate import Certificate, Trial, Verdict, on_grid
from packager.consumers import core, ilastik, jdll
from packager.consumers.placement import DeclaredAxis, Placement, Refusal
from packager.consumers.stitch import Run, read_padded, stitch
from packager.kinds import Product, Target
from packager.weights import WeightFormat
from zoo_models.checkpoint import Normalisation
from zoo_models.errors import ExportError
from zoo_models.geometry import Box

CONSUMERS: dict[str, tuple[Target, tuple[WeightFormat, ...]]] = {
    core.NAME: ("core", ("torchscript", "onnx")),
    ilastik.NAME: ("ilastik", ("torchscript",)),
    jdll.NAME: ("fiji", ("torchscript",)),
}
"""Who is certified, under which name of `--for`, and the weight files that it runs."""


def certify(product: Product, folder: Path, normalisation: Normalisation) -> Certificate:
    """Run the weight files in `folder` as every consumer would, and compare with one pass."""
    channels = len(product.takes.channels)
    constants = normalisation if product.takes_image else Normalisation()
    runs: dict[WeightFormat, Run] = {
        form: _raw_run(folder / weights.WEIGHTS[form], constants)
        for form in product.formats
        if form != "pytorch_state_dict"
    }
    verdicts = []
    for name, (_, formats) in CONSUMERS.items():
        trials = [
            trial
            for size in _sizes(product)
            for form in formats
            if form in runs
            for trial in _try(product, name, size, (form, runs[form]), channels)
        ]
        verdicts.append(Verdict(name, _grid(product, trials), tuple(trials)))
    names = ("spoco-zoo", "torch", "onnxruntime", "bioimageio.core")
    return Certificate(tuple(verdicts), {n: version(n) for n in names})


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
        if not verdict.placed and short == "ilastik" and target is None:
            continue
        worst = max(verdict.trials, key=lambda t: (t.difference, t.refusal))
        size = "x".join(map(str, worst.size))
        told = worst.refusal or f"differs by {worst.difference:.2g} standard deviations"
        broken.append(f"{verdict.consumer} on an image of {size}: {told}")
    if broken:
        raise ExportError(
            f"Tiles would show, no package was kept: {'; '.join(broken)}. The network depends on "
            "more than its declared surroundings (a group or instance norm does)."
        )


def _raw_run(file: Path, constants: Normalisation) -> Run:
    answer: Callable[[NDArray[np.float32]], NDArray[np.float32]] = weights.runner(file)
    return lambda raw: np.asarray(answer(constants.apply(raw)[None])[0], np.float32)


def _try(
    product: Product,
    consumer: str,
    size: tuple[int, ...],
    form: tuple[WeightFormat, Run],
    channels: int,
) -> Iterator[Trial]:
    name, run = form
    image = position_rich(size, channels=channels)
    for placement in _placements(product, consumer, size):
        if isinstance(placement, Refusal):
            yield Trial(size, "", 0, math.inf, f"{placement.how}: {placement.reason}")
            continue
        stitched = stitch(run, image, placement)
        expected = _whole(product, run, image, placement)
        gap = np.abs(stitched.output - expected).max() / max(float(expected.std()), 1e-12)
        failed = bool(stitched.failed) or not np.isfinite(gap)
        yield Trial(size, name, len(placement), math.inf if failed else float(gap))


def _placements(
    product: Product, consumer: str, size: tuple[int, ...]
) -> Iterator[Placement | Refusal]:
    """The consumer's placements with small tiles, so that images of several are affordable."""
    axes, tile = product.axes, [_tile(axis, product.one_pass) for axis in product.axes]
    channels = len(product.gives.channels)
    if consumer == core.NAME:
        if product.one_pass:
            yield core.place_whole(axes, size)
        else:
            yield core.place(axes, size, n=1)
    elif consumer == ilastik.NAME:
        yield ilastik.place(axes, size, target=max(tile), channels=channels)
    else:
        yield jdll.place(axes, size)
        if not product.one_pass and axes[0].step:
            yield jdll.place(axes, size, tile=tile)


def _tile(axis: DeclaredAxis, one_pass: bool) -> int:
    return 64 if one_pass else axis.minimum + axis.step


def _whole(
    product: Product, run: Run, image: NDArray[np.float32], placement: Placement
) -> NDArray[np.float32]:
    """One pass over the image, mirrored by the halo and up to the grid as the consumer mirrors.

    image    |-------- S --------|
    read  H--|-------------------|xx--H     S + x: a multiple of the period
    """
    if product.one_pass:
        return run(image)
    size = image.shape[1:]
    halo = tuple(axis.halo for axis in product.axes)
    padded = [math.ceil(n / g) * g for n, g in zip(size, product.grid, strict=True)]
    least = [a.minimum - 2 * a.halo if a.step else 1 for a in product.axes]
    stop = tuple(max(n, m) + h for n, m, h in zip(padded, least, halo, strict=True))
    read = Box(tuple(-h for h in halo), stop)
    answer = run(read_padded(image, read, placement.padding))
    return answer[:, *Box.of_shape(size).shift(halo).slices]


def _sizes(product: Product) -> list[tuple[int, ...]]:
    """Image sizes to try; see the figure above. In 3D one axis at a time has several tiles."""
    if product.one_pass:
        return [(40, 83, 150)[-len(product.axes) :], (21, 64, 65)[-len(product.axes) :]]
    per_axis = [_lengths(a, p) for a, p in zip(product.axes, product.grid, strict=True)]
    recipes = list(zip(*per_axis, strict=True))
    if len(per_axis) == 2:
        return recipes
    filled = [lengths[-1] for lengths in per_axis]
    return [
        tuple(length if a == axis else other for a, other in enumerate(filled))
        for axis, lengths in enumerate(per_axis)
        for length in lengths[:-1]
    ]


def _lengths(axis: DeclaredAxis, period: int) -> list[int]:
    """Per recipe of the figure the length of one axis; the last one is the small image."""
    tile = _tile(axis, one_pass=False)
    kept, grid = tile - 2 * axis.halo, 2 * period
    several = 2 if tile <= 320 else 1
    small = math.ceil(tile / 3 / grid) * grid
    many = (several + 1) * kept
    return [many, several * kept + grid, several * kept + period, several * kept + 1, small]


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
