"""Embeddings as a perfectly trained network would give them, and worse: with known truth.

Three kinds of instances, 2D or 3D, 0 is background::

    voronoi            cells              leaves
    1 1 1/2 2 2        . 1 1 . 2 .        . 1 . . 2 2
    1 1/3\\2 2 2        1 1 1 2 2 2        1 1 1 2 2 .     bent, lobed, the later ones
    1/3 3 3\\2 2        . 1 . 2 2 .        . 1 2 2 1 .     lie over the earlier ones

1. every pixel gets the mean of its instance. The means of instances near each other are at least
   2 delta_d apart, as the push term wants them. Distant instances may share one: a network whose
   answer is the same at every shift by its period cannot do otherwise
2. `blur` mixes the means of the two sides of a boundary, as every network does
3. noise is added; `correlation` makes it smooth in space, as that of networks is
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

Floats = NDArray[np.float32]
Labels = NDArray[np.int32]
Mask = NDArray[np.bool_]
Points = NDArray[np.float64]

SMALLEST = 0.02
"""Instances that show less than this part of the area that each has on average become background:
leaves that others hide."""

NEAR = 2.0
"""Instances with centres nearer than this many spacings have different means."""


Kind = Literal["voronoi", "cells", "leaves"]


@dataclass(frozen=True)
class Scene:
    """What to draw. The same seed draws the same instances, whatever the noise.

    shape: ([Z,] Y, X), pixels.
    instances: their number, or a few less where leaves hide others.
    kind: "voronoi" has no background, "cells" have gaps and touch here and there, "leaves" are not
        convex and overlap.
    dim: D, of the embedding.
    delta_d: means of instances near each other are at least twice this apart.
    distinct: number of different means, the background's not counted.
    sigma: standard deviation of the noise in each of the D dimensions; the pull term wants
        sigma * sqrt(D) below delta_v.
    blur: sigma of the Gaussian that blurs the embedding before the noise; pixels.
    correlation: sigma of the Gaussian that smooths the noise, which keeps its `sigma`; pixels.
    view: another one has other noise on the same embedding, as a teacher's answer has.
    """

    shape: tuple[int, ...]
    instances: int = 100
    kind: Kind = "cells"
    dim: int = 16
    delta_d: float = 2.0
    distinct: int = 64
    sigma: float = 0.1
    blur: float = 0.0
    correlation: float = 0.0
    seed: int = 0
    view: int = 0

    @property
    def spacing(self) -> float:
        """Pixels from one instance to the next, on average."""
        return float((math.prod(self.shape) / self.instances) ** (1 / len(self.shape)))


@dataclass(frozen=True, eq=False)
class SyntheticEmbeddings:
    """embeddings (D, [Z,] Y, X) float32; truth ([Z,] Y, X) int32, connected instances 1..n, 0 is
    background; means (n + 1, D) float32 without noise, that of the background first."""

    embeddings: Floats
    truth: Labels
    means: Floats


def synthesise(scene: Scene) -> SyntheticEmbeddings:
    """Draw the scene; at most about twice the memory of the embeddings.

    Raises:
        ValueError: not 2D or 3D, more instances than pixels, or too few distinct means for the
            number of instances that are near each other.
    """
    if len(scene.shape) not in (2, 3) or not 0 < scene.instances <= math.prod(scene.shape):
        raise ValueError(
            f"found {scene.instances} instances in the shape {scene.shape}, expected at least one "
            "and at most one per pixel, in 2D or 3D"
        )
    for_shapes, for_means, *for_views = np.random.default_rng(scene.seed).spawn(3 + scene.view)
    centres = _centres(scene, for_shapes)
    truth, kept = _connected(_painted(scene, centres, for_shapes), scene)
    palette = _far_apart(scene, for_means)
    means = palette[_colours(scene, _near(truth, centres[kept], scene), for_means)]
    return SyntheticEmbeddings(_embeddings(scene, truth, means, for_views[-1]), truth, means)


def _centres(scene: Scene, rng: np.random.Generator) -> Points:
    """(instances, axes): places of a regular grid, each shaken."""
    grid = np.ceil(np.array(scene.shape) / scene.spacing - 1e-9).astype(int)
    places = rng.choice(grid.prod(), scene.instances, replace=False)
    corner = np.stack(np.unravel_index(places, grid), axis=1)
    centres: Points = (corner + rng.uniform(0.05, 0.95, corner.shape)) / grid * scene.shape
    return centres


def _painted(scene: Scene, centres: Points, rng: np.random.Generator) -> Labels:
    """Labels i + 1 of the instance at centre i; some may be hidden or in pieces."""
    if scene.kind == "leaves":
        return _leaves(scene, centres, rng)
    if scene.kind == "cells":
        return _balls(scene, centres, scene.spacing * rng.uniform(0.2, 0.65, len(centres)))
    radius = 1.0 * scene.spacing
    while True:  # a pixel that any ball covers has found its nearest centre
        labels = _balls(scene, centres, np.full(len(centres), radius))
        if labels.all():
            return labels
        radius *= 1.5


def _balls(scene: Scene, centres: Points, radii: Points) -> Labels:
    """Every pixel within the radius of a centre goes to the nearest such centre."""
    labels = np.zeros(scene.shape, np.int32)
    nearest = np.full(scene.shape, np.inf, np.float32)
    for number, (centre, radius) in enumerate(zip(centres, radii, strict=True), start=1):
        box, offsets = _around(centre, radius, scene.shape)
        squared = sum(offset**2 for offset in offsets)
        won = (squared < nearest[box]) & (squared <= radius**2)
        np.copyto(nearest[box], squared, where=won)
        labels[box][won] = number
    return labels


def _leaves(scene: Scene, centres: Points, rng: np.random.Generator) -> Labels:
    """Along u a leaf is as wide as 1 - u^2, with lobes, around a line that bends as u^2."""
    labels = np.zeros(scene.shape, np.int32)
    for number, centre in enumerate(centres, start=1):
        length = scene.spacing * rng.uniform(0.4, 0.9)
        width = length * rng.uniform(0.3, 0.5)
        bend, lobe = rng.uniform(-1, 1) * width, rng.uniform(0, 2 * np.pi)
        turn = np.linalg.qr(rng.normal(size=(len(centre), len(centre))))[0].astype(np.float32)
        box, offsets = _around(centre, length + 2 * width, scene.shape)
        along, *across = (
            sum(weight * offset for weight, offset in zip(row, offsets, strict=True))
            for row in turn
        )
        u = along / np.float32(length)
        across[0] = across[0] - np.float32(bend) * (u**2 - np.float32(1 / 3))
        half = width * (1 - u**2) * (1 + 0.3 * np.cos(3 * np.pi * u + lobe))
        labels[box][(half > 0) & (sum(v**2 for v in across) <= half**2)] = number
    return labels


def _around(
    centre: Points, radius: float, shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], list[Floats]]:
    """The box of pixels within `radius` of a centre along each axis, and their offsets from it."""
    box, offsets = [], []
    for axis, (middle, size) in enumerate(zip(centre, shape, strict=True)):
        start, stop = max(0, math.floor(middle - radius)), min(size, math.ceil(middle + radius) + 1)
        box.append(slice(start, stop))
        line = (np.arange(start, stop) + 0.5 - middle).astype(np.float32)
        offsets.append(line.reshape([-1 if a == axis else 1 for a in range(len(shape))]))
    return tuple(box), offsets


def _connected(labels: Labels, scene: Scene) -> tuple[Labels, NDArray[np.intp]]:
    """Of each label the largest piece, numbered 1..n, and the index i of each, where it was i + 1.

    Where all is filled, the slivers that are cut off go to a neighbour.
    """
    filled = scene.kind == "voronoi"
    least = 1 if filled else SMALLEST * scene.spacing ** len(scene.shape)
    truth, kept = np.zeros_like(labels), []
    for index, box in enumerate(ndimage.find_objects(labels)):
        if box is None:
            continue
        piece = _largest_piece(labels[box] == index + 1)
        if np.count_nonzero(piece) >= least:
            kept.append(index)
            truth[box][piece] = len(kept)
    while filled and not truth.all():
        cross = ndimage.generate_binary_structure(truth.ndim, 1)
        truth = np.where(truth == 0, ndimage.grey_dilation(truth, footprint=cross), truth)
    return truth, np.array(kept, np.intp)


def _largest_piece(mask: Mask) -> Mask:
    pieces, number = ndimage.label(mask)
    if number == 1:
        return mask
    largest: Mask = pieces == np.bincount(pieces[mask]).argmax()
    return largest


def _far_apart(scene: Scene, rng: np.random.Generator) -> Floats:
    """(distinct + 1, D): about as dense as chance finds room for them, 2 delta_d apart."""
    room = 2 * scene.delta_d
    scale = room / math.sqrt(2 * scene.dim)  # two draws are then `room` apart, on average
    means = np.zeros((0, scene.dim))
    while len(means) <= scene.distinct:
        drawn = rng.normal(0, scale, scene.dim)
        if (np.linalg.norm(means - drawn, axis=1) >= 1.001 * room).all():
            means = np.vstack([means, drawn])
        else:
            scale *= 1.002
    return means.astype(np.float32)


def _near(truth: Labels, centres: Points, scene: Scene) -> list[set[int]]:
    """For each instance, at its number, the numbers of those that touch it or are near it."""
    pairs = {(a + 1, b + 1) for a, b in cKDTree(centres).query_pairs(NEAR * scene.spacing)}
    pairs.update(_touching(truth))
    near: list[set[int]] = [set() for _ in range(len(centres) + 1)]
    for a, b in pairs:
        near[a].add(b)
        near[b].add(a)
    return near


def _touching(truth: Labels) -> Iterator[tuple[int, int]]:
    for axis in range(truth.ndim):
        low = truth[(slice(None),) * axis + (slice(None, -1),)]
        high = truth[(slice(None),) * axis + (slice(1, None),)]
        meet = (low != high) & (low > 0) & (high > 0)
        pairs = np.unique(np.stack([low[meet], high[meet]], axis=1), axis=0)
        yield from map(tuple, pairs.tolist())


def _colours(scene: Scene, near: list[set[int]], rng: np.random.Generator) -> NDArray[np.intp]:
    """(n + 1,): which mean each instance has, 0 for the background; all differ where they can."""
    count = len(near) - 1
    if count <= scene.distinct:
        return np.concatenate([[0], 1 + rng.permutation(scene.distinct)[:count]])
    colours = np.zeros(count + 1, np.intp)
    for instance, tried in enumerate(rng.random((count, scene.distinct)).argsort(axis=1), start=1):
        taken = {int(colours[other]) for other in near[instance]}
        free = [colour for colour in (tried + 1).tolist() if colour not in taken]
        if not free:
            raise ValueError(
                f"an instance has {len(near[instance])} others near it and there are "
                f"{scene.distinct} distinct means; expected more means: raise `distinct`"
            )
        colours[instance] = free[0]
    return colours


def _embeddings(scene: Scene, truth: Labels, means: Floats, rng: np.random.Generator) -> Floats:
    """Channel by channel, and in place: one channel more than the result is in memory."""
    result = np.empty((scene.dim, *scene.shape), np.float32)
    noise = np.empty(scene.shape, np.float32)
    loudness = scene.sigma / _smooth_loss(scene)
    for channel, values in zip(result, means.T, strict=True):
        np.take(np.ascontiguousarray(values), truth, out=channel, mode="clip")
        if scene.blur:
            ndimage.gaussian_filter(channel, scene.blur, output=channel, mode="nearest")
        rng.standard_normal(out=noise, dtype=np.float32)
        if scene.correlation:
            ndimage.gaussian_filter(noise, scene.correlation, output=noise, mode="wrap")
        noise *= np.float32(loudness)
        channel += noise
    return result


def _smooth_loss(scene: Scene) -> float:
    """By what smoothing shrinks the standard deviation of white noise.

    Smoothing goes around the edges ("wrap"), so this is the same at every pixel.
    """
    left = 1.0
    for size in scene.shape if scene.correlation else ():
        impulse = np.zeros(size)
        impulse[0] = 1
        left *= float(
            np.linalg.norm(ndimage.gaussian_filter1d(impulse, scene.correlation, mode="wrap"))
        )
    return left
