"""Instances from embeddings: flat basins, merged by their means. Linear in the image, no seeds.

Training gives the embedding space a known shape: pixels lie within delta_v of their instance's
mean, means at least 2 delta_d apart; the background of all images is at one known place. Seen as a
landscape of how fast embeddings change, every instance is a flat valley (or a few), and a ridge
runs where one meets another::

    change of embedding             /\\            /\\
    from pixel to pixel    ____/\\__/  \\____/\\____/  \\____
    basins                | 1 |  2 ||  3   |  4   ||  5  |
    merged by mean        |   A    ||      B      ||  C  |

1. pixels within `radius` of the background's embedding are background; where that is a cloud, wide
   along some dimensions and narrow along others, `spread` measures the distance in its widths
2. every other pixel walks downhill to a minimum: pixels that end together are a basin (watershed by
   steepest descent). It ends at its ridge all around, where linking neighbours pixel by pixel would
   leak through the weakest spot of a boundary
3. touching basins whose embeddings at the minimum differ by less than `join` are one valley
4. of the rest, the two touching groups under the least tension are merged, again and again, until
   no two are nearer than `merge` and under less than `tension`. Tension is the distance of the
   means, times the side of the smaller group, divided by the contact: two halves of an object
   touch broadly, two objects mostly at a few pixels. A pixel where two groups meet goes with the
   direct neighbour that leads to what resembles it most, a few steps downhill
5. pixels much nearer to the background than their group is (`solid`) are its blurred rim, and
   become background, unless their group encloses them
6. connected pieces of at least `min_size` pixels are the instances

Only touching groups merge, so two distant objects that look alike, and so share an embedding, stay
two. Each step looks at a pixel's neighbours, or at one small table for all of the image: so blocks
of an image give the labels of the whole (zoo_models/prediction/merge.py of spoco-zoo). This file
travels inside packages and imports numpy and scipy only.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Labels = NDArray[np.int32]
Mask = NDArray[np.bool_]
Slices = tuple[slice, ...]
Touching = tuple[Integers, Integers, Integers]
"""Columns of pairs: first, second, contact."""

AHEAD = 4
"""Steps downhill at which groups are compared: over a blurred boundary. A power of two."""


class BasinMerging:
    """Clusterer of pixel embeddings. Distances are Euclidean, in embedding space, but for `spread`.

    delta_v, delta_d: margins of the pull and push terms of training. All that follows is derived
        from them where it is not given.
    join: largest distance between two touching basins of one valley; above the noise.
        Default 0.4 delta_d.
    merge: largest distance between the means of two touching parts of one instance; between
        2 delta_v, the width of an instance, and 2 delta_d, the distance of two. Default
        1.6 delta_d.
    tension: largest tension between them. It is their distance where a square touches with one
        whole side, more where the contact is narrower. Default delta_d.
    radius: a pixel at this distance from the background, or further, may be object; delta_d is
        halfway. The pull term asks for more: a pixel weighs more in a small instance than in the
        large background, so a blurred boundary leans to the instance. Default 1.9 delta_d.
    solid: of a group whose pixels are b from the background in the mean, those nearer than
        solid * b are background; 0 keeps all.
    min_size: smaller instances are dropped; pixels.
    background: mean embedding of the background; empty: that of the largest valley.
    spread: D * D numbers, row by row a matrix W. The distance of an embedding e from the background
        is then ||W (e - background)||, and `radius` and `solid` are in its units; no other distance
        changes. With the inverse square root of the background's covariance as W, distances are in
        standard deviations of the background. Empty: ||e - background||.

    Raises ValueError: a margin is negative, or delta_d 0; `spread` has not D * D numbers for the D
    of `background`.
    """

    def __init__(
        self,
        delta_v: float = 0.5,
        delta_d: float = 2.0,
        join: float | None = None,
        merge: float | None = None,
        radius: float | None = None,
        solid: float = 0.9,
        min_size: int = 20,
        background: Sequence[float] = (),
        spread: Sequence[float] = (),
        tension: float | None = None,
    ) -> None:
        if not (delta_v >= 0 and delta_d > 0):
            raise ValueError(
                f"delta_v is {delta_v} and delta_d {delta_d}, expected 0 or more, and more than 0: "
                "the margins the network was trained with"
            )
        if len(spread) not in (0, len(background) ** 2):
            raise ValueError(
                f"spread has {len(spread)} numbers and background has {len(background)}, expected "
                "D * D and D, or no spread; measure both on the same embeddings"
            )
        self.join = 0.4 * delta_d if join is None else join
        self.merge = 1.6 * delta_d if merge is None else merge
        self.radius = 1.9 * delta_d if radius is None else radius
        self.solid = solid
        self.min_size = min_size
        self.background = background
        self.spread = spread
        self.tension = delta_d if tension is None else tension

    def __call__(self, embeddings: Floats, foreground: Mask | None = None) -> Labels:
        """Embeddings (D, [Z,] Y, X) float32 -> labels ([Z,] Y, X) int32, 0 is background.

        With `foreground`, a mask of the labels' shape, only its pixels are labelled. Instances are
        numbered 1, 2, ... in the order of their first pixels.

        Raises ValueError: embeddings that are not finite; a mask or a background of another shape.
        """
        shape = embeddings.shape[1:]
        if foreground is not None and foreground.shape != shape:
            raise ValueError(
                f"the foreground has the shape {foreground.shape} and the embeddings have {shape}; "
                "give a mask of the same pixels"
            )
        if embeddings.size == 0:
            return np.zeros(shape, np.int32)
        place = self.background if len(self.background) else self.largest_valley(embeddings)
        distance, height = self.landscape(embeddings, place)
        inside = distance >= self.radius
        if foreground is not None:
            inside &= foreground
        target = self.downhill(height, inside)
        basins, roots = self.basins(target, inside)
        bottoms = self.bottoms(embeddings, inside, roots)
        sizes = self.sizes(basins, len(bottoms))
        groups = self.groups(bottoms, sizes, self.touching(basins), self.merge, inside.ndim)
        settled = self.settled(embeddings, target, self.painted(basins, groups))
        return self.instances(settled, distance)

    def largest_valley(self, embeddings: Floats) -> Floats:
        """Mean embedding (D,) of the largest valley, where the background's place is not known."""
        everywhere = np.ones(embeddings.shape[1:], bool)
        _, height = self.landscape(embeddings, [0.0] * len(embeddings))
        basins, roots = self.basins(self.downhill(height, everywhere), everywhere)
        bottoms = self.bottoms(embeddings, everywhere, roots)
        sizes = self.sizes(basins, len(bottoms))
        valleys = self.groups(bottoms, sizes, self.touching(basins), 0.0, everywhere.ndim)
        largest = valleys == np.bincount(valleys, weights=sizes).argmax()
        return np.average(bottoms[largest], axis=0, weights=sizes[largest]).astype(np.float32)

    def landscape(
        self, embeddings: Floats, place: Sequence[float] | Floats
    ) -> tuple[Floats, Floats]:
        """Distance from the background and height, both ([Z,] Y, X), of every pixel.

        Raises ValueError: embeddings that are not finite, or a place of another length.
        """
        self.expect_place(embeddings, place)
        distance = from_background(embeddings, place, self.spread)
        expect_finite(distance)
        return distance, change(embeddings)

    def expect_place(self, embeddings: Floats, place: Sequence[float] | Floats) -> None:
        if len(place) != len(embeddings):
            raise ValueError(
                f"the background has {len(place)} numbers and a pixel's embedding "
                f"{len(embeddings)}; measure it with the network that made the embeddings"
            )

    def downhill(self, height: Floats, inside: Mask) -> Integers:
        """Step 2: flat index ([Z,] Y, X) of each pixel's next pixel on its way down."""
        return downhill(height, inside)

    def basins(self, target: Integers, inside: Mask) -> tuple[Labels, Integers]:
        """Step 2: basins 1..n, 0 outside, and the flat index (n,) of the minimum of each."""
        roots, basin = np.unique(walk(target)[inside], return_inverse=True)
        basins = np.zeros(inside.shape, np.int32)
        basins[inside] = basin + 1
        return basins, roots

    def settled(self, embeddings: Floats, target: Integers, labels: Labels) -> Labels:
        """End of step 4: labels whose boundary pixels have chosen a side."""
        return settled(embeddings, target, labels)

    def bottoms(self, embeddings: Floats, inside: Mask, roots: Integers) -> Floats:
        """Row b of (n + 1, D): mean embedding of the 3 x 3 (x 3) pixels inside around minimum b."""
        shape = inside.shape
        position = np.stack(np.unravel_index(roots, shape))
        total = np.zeros((len(embeddings), len(roots)))
        count = np.zeros(len(roots))
        for offset in itertools.product((-1, 0, 1), repeat=len(shape)):
            moved = position + np.array(offset)[:, None]
            within = np.all((moved >= 0) & (moved < np.array(shape)[:, None]), axis=0)
            pixel = np.where(within, moved, position)
            within &= inside[tuple(pixel)]
            total += np.where(within, embeddings[:, *pixel], 0)
            count += within
        return np.concatenate([np.zeros((1, len(embeddings))), (total / count).T]).astype(
            np.float32
        )

    def sizes(self, labels: Labels, number: int) -> Integers:
        """Pixels of the labels 0 ... number - 1."""
        return np.bincount(labels.ravel(), minlength=number)

    def touching(self, labels: Labels) -> Touching:
        """Pairs of labels that are direct neighbours somewhere, and at how many places."""
        return touching(labels)

    def components(self, number: int, first: Integers, second: Integers) -> Integers:
        """Component 0, 1, ... of each of `number` nodes joined by edges."""
        return components(number, first, second)

    def linked(
        self,
        means: NDArray[np.float64],
        sizes: NDArray[np.float64],
        pairs: Touching,
        merge: float,
        ndim: int,
    ) -> Integers:
        """Step 4, see the function."""
        return linked(means, sizes, pairs, (merge, math.prod([self.tension] * ndim)), ndim)

    def groups(
        self,
        bottoms: Floats,
        sizes: Integers,
        pairs: Touching,
        merge: float,
        ndim: int,
    ) -> Labels:
        """Steps 3 and 4: the group (n + 1,) of each basin, 0 for row 0.

        bottoms: (n + 1, D), row 0 not used; sizes: pixels of each (n + 1,); ndim: image axes.
        """
        first, second, contact = pairs
        near = distances(bottoms.astype(float), first, second) < self.join
        valley = self.components(len(bottoms), first[near], second[near])
        weight = np.maximum(np.bincount(valley, weights=sizes), 1)
        sums = [np.bincount(valley, weights=sizes * values) for values in bottoms.T]
        means = np.stack(sums, axis=1) / weight[:, None]
        between = summed(valley[first], valley[second], contact, len(weight))
        return self.linked(means, weight, between, merge, ndim)[valley].astype(np.int32)

    def instances(self, groups: Labels, distance: Floats) -> Labels:
        """Steps 5 and 6."""
        part, group_rim, sizes = self.regions(self.rim(groups, distance))
        first, second, _ = self.touching(part + 1)
        return self.painted(part, self.pieces(group_rim, sizes, (first - 1, second - 1)))

    def rim(self, groups: Labels, distance: Floats) -> Labels:
        """Step 5: twice the group of each pixel, and 1 more where it is rim."""
        total = np.bincount(groups.ravel(), weights=distance.ravel())
        limit = self.solid * (total / np.maximum(np.bincount(groups.ravel()), 1))
        limit[0] = 0
        return 2 * groups + (distance < limit[groups])

    def regions(self, categories: Labels) -> tuple[Labels, Labels, Integers]:
        """Connected parts 0, 1, ... of equal category, in the order of their first pixels.

        Part of each pixel; category (n,) and pixels (n,) of each part.
        """
        part = regions(categories)
        sizes = np.bincount(part.ravel())
        category = np.zeros(len(sizes), np.int32)
        category[part] = categories
        return part, category, sizes

    def painted(self, labels: Labels, numbers: Labels) -> Labels:
        """The number of each pixel's label."""
        return numbers[labels]

    def pieces(
        self, group_rim: Labels, sizes: Integers, pairs: tuple[Integers, Integers]
    ) -> Labels:
        """The instance of each part of a group, 0 for none: (n,).

        group_rim: twice the group of a part, and 1 more where it is rim; group 0 is background.
        sizes: pixels of a part. pairs: parts that touch. Parts are in the order of first pixels.
        """
        first, second = pairs
        group, rim = group_rim // 2, group_rim % 2 == 1
        same = group[first] == group[second]
        enclosed = np.ones(len(group), bool)
        enclosed[first[~same]] = enclosed[second[~same]] = False
        kept = (group > 0) & (~rim | enclosed)
        join = same & kept[first] & kept[second]
        piece = self.components(len(group), first[join], second[join])
        wanted = np.bincount(piece, weights=sizes * kept) >= max(self.min_size, 1)
        number = np.where(wanted, np.cumsum(wanted), 0)
        return np.where(kept, number[piece], 0).astype(np.int32)


def from_background(
    embeddings: Floats, place: Sequence[float] | Floats, spread: Sequence[float]
) -> Floats:
    """Step 1: distance ([Z,] Y, X) of every pixel from the background, in units of `spread`."""
    squared = np.zeros(embeddings.shape[1:], np.float32)
    centre = np.asarray(place, np.float32)
    if len(spread) == 0:
        for channel, value in zip(embeddings, centre, strict=True):
            squared += (channel - value) ** 2
        return np.sqrt(squared)
    for row in np.asarray(spread, np.float32).reshape(centre.size, centre.size):
        along_row = np.zeros_like(squared)
        for weight, channel, value in zip(row, embeddings, centre, strict=True):
            along_row += weight * (channel - value)
        squared += along_row**2
    return np.sqrt(squared)


def expect_finite(distance: Floats) -> None:
    """A pixel with NaN or infinity in any channel has no finite distance."""
    bad = distance.size - np.count_nonzero(np.isfinite(distance))
    if bad:
        raise ValueError(
            f"{bad} of {distance.size} pixels have embeddings that are not finite, or too large "
            "for float32; look for NaN in the image, or divergence in training"
        )


def change(embeddings: Floats) -> Floats:
    """Height: how much a pixel differs from its direct neighbours, summed squares, smoothed."""
    height = np.zeros(embeddings.shape[1:], np.float32)
    for axis in range(height.ndim):
        low, high = along(axis, height.ndim)
        squared = np.zeros_like(height[low])
        for channel in embeddings:
            squared += (channel[high] - channel[low]) ** 2
        height[low] += squared
        height[high] += squared
    for axis in range(height.ndim):  # the middle weighs most, so that 3 pixels can be a valley
        height = ndimage.convolve1d(height, [0.25, 0.5, 0.25], axis=axis)
    return height


def downhill(height: Floats, inside: Mask) -> Integers:
    """Flat index of the lowest of each pixel's neighbours inside, ([Z,] Y, X).

    Diagonal neighbours count, and the pixel itself; of equal ones the first.
    """
    shape, height = height.shape, np.where(inside, height, np.inf)
    index = np.arange(height.size).reshape(shape)
    lowest, target = height.copy(), index.copy()
    for offset in itertools.product((-1, 0, 1), repeat=height.ndim):
        here = tuple(slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, shape, strict=True))
        there = tuple(slice(max(0, o), n - max(0, -o)) for o, n in zip(offset, shape, strict=True))
        lower = height[there] < lowest[here]
        tied = (height[there] == lowest[here]) & (index[there] < target[here])
        lowest[here] = np.where(lower, height[there], lowest[here])
        target[here] = np.where(lower | tied, index[there], target[here])
    return target


def walk(target: Integers) -> Integers:
    """Where pointers end; following pointers to pointers doubles the distance walked each time."""
    walked = target.ravel()
    while not np.array_equal(walked[walked], walked):
        walked = walked[walked]
    return walked.reshape(target.shape)


def settled(embeddings: Floats, target: Integers, labels: Labels) -> Labels:
    """Labels ([Z,] Y, X), where the pixels at which two labels meet may change sides.

    Such a pixel is compared with what lies AHEAD steps downhill of it and of each direct neighbour,
    and takes the label of the nearest; its own of equal ones, else the first neighbour's.
    """
    shape, flat, old = labels.shape, embeddings.reshape(len(embeddings), -1), labels.ravel()
    ahead = target.ravel()
    for _ in range(AHEAD.bit_length() - 1):
        ahead = ahead[ahead]
    meet = np.zeros(shape, bool)
    for axis in range(labels.ndim):
        low, high = along(axis, labels.ndim)
        differ = (labels[low] != labels[high]) & (labels[low] > 0) & (labels[high] > 0)
        meet[low] |= differ
        meet[high] |= differ
    place = np.flatnonzero(meet)
    position = np.unravel_index(place, shape)
    nearest, chosen = squared_distance(flat, place, ahead[place]), old[place]
    for axis, offset in itertools.product(range(labels.ndim), (-1, 1)):
        moved = list(position)
        moved[axis] = np.clip(position[axis] + offset, 0, shape[axis] - 1)
        beside = np.ravel_multi_index(tuple(moved), shape)
        squared = squared_distance(flat, place, ahead[beside])
        closer = (old[beside] > 0) & (squared < nearest)
        nearest[closer], chosen[closer] = squared[closer], old[beside[closer]]
    new = labels.copy()
    new.ravel()[place] = chosen
    return new


def squared_distance(flat: Floats, first: Integers, second: Integers) -> Floats:
    """Between pixels of (D, pixels), channel by channel, so that others can sum in this order."""
    squared = np.zeros(len(first), np.float32)
    for channel in flat:
        squared += (channel[first] - channel[second]) ** 2
    return squared


def touching(labels: Labels) -> Touching:
    """Each pair 0 < a < b of labels that are direct neighbours somewhere, once, in order.

    The contact of a pair is the number of pixels of a and b that are direct neighbours.
    """
    firsts, seconds = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for axis in range(labels.ndim):
        low, high = along(axis, labels.ndim)
        one, other = labels[low], labels[high]
        differ = (one != other) & (one > 0) & (other > 0)
        firsts.append(one[differ].astype(np.int64))
        seconds.append(other[differ].astype(np.int64))
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    return summed(first, second, np.ones_like(first), int(labels.max(initial=0)) + 1)


def summed(first: Integers, second: Integers, contact: Integers, number: int) -> Touching:
    """Each pair a < b of 0 ... number - 1 once, in order, with the sum of its contacts."""
    apart = first != second
    first, second = first[apart], second[apart]
    key = np.minimum(first, second) * number + np.maximum(first, second)
    unique, at = np.unique(key, return_inverse=True)
    total = np.bincount(at, weights=contact[apart], minlength=len(unique)).astype(np.int64)
    return unique // number, unique % number, total


def components(number: int, first: Integers, second: Integers) -> Integers:
    """Component 0, 1, ... of each of `number` nodes joined by edges, in order of first nodes."""
    graph = coo_array((np.ones(len(first), bool), (first, second)), (number, number))
    _, component = connected_components(graph, directed=False)
    _, start = np.unique(component, return_index=True)
    rank = np.empty(len(start), np.int64)
    rank[np.argsort(start)] = np.arange(len(start))
    ordered: Integers = rank[component]
    return ordered


def regions(categories: Labels) -> Labels:
    """Connected parts 0, 1, ... of equal category, in the order of their first pixels.

    Pixels are joined to runs along the last axis first; two runs in neighbouring lines meet where
    the later of them begins, so one pair of pixels says it::

        1 1 1 1 0 0        a a a a b b
        0 1 1 2 2 2        c d d e e e        a-d
    """
    starts = np.ones(categories.shape, bool)
    last = categories.ndim - 1
    low, high = along(last, categories.ndim)
    starts[high] = categories[high] != categories[low]
    run = (np.cumsum(starts.ravel()) - 1).reshape(categories.shape)
    pairs = [np.zeros((2, 0), np.int64)]
    for axis in range(last):
        low, high = along(axis, categories.ndim)
        meet = (starts[low] | starts[high]) & (categories[low] == categories[high])
        pairs.append(np.stack([run[low][meet], run[high][meet]]))
    first, second = np.concatenate(pairs, axis=1)
    parts: Labels = components(int(run[(-1,) * run.ndim]) + 1, first, second).astype(np.int32)[run]
    return parts


def linked(
    means: NDArray[np.float64],
    sizes: NDArray[np.float64],
    pairs: Touching,
    limits: tuple[float, float],
    ndim: int,
) -> Integers:
    """Step 4: centroid linkage of touching groups (n, D): the group of each, (n,).

    Those under the least tension go first; of two pairs under one, the pair with the smaller
    group. The smaller group gives its number. limits: distance, and tension ** ndim; ndim: axes of
    the image.
    """
    number = len(means)
    centre, size = means.copy(), sizes.copy()
    beside: list[dict[int, int]] = [{} for _ in range(number)]
    for a, b, contact in zip(*(column.tolist() for column in pairs), strict=True):
        beside[a][b] = beside[b][a] = contact
    version, into = [0] * number, np.arange(number)
    heap: list[tuple[float, int, int, int, int]] = []

    def consider(first: Integers, second: Integers, contact: Integers) -> None:
        length = distances(centre, first, second)
        tension = tensions(length, np.minimum(size[first], size[second]), contact, ndim)
        near = (length < limits[0]) & (tension < limits[1])
        rows = zip(tension[near], first[near].tolist(), second[near].tolist(), strict=True)
        for t, a, b in rows:
            heapq.heappush(heap, (float(t), a, b, version[a], version[b]))

    consider(*pairs)
    while heap:
        _, a, b, seen_a, seen_b = heapq.heappop(heap)
        if version[a] != seen_a or version[b] != seen_b:
            continue  # one of them has grown, or is gone, since this pair was measured
        centre[a] = (centre[a] * size[a] + centre[b] * size[b]) / (size[a] + size[b])
        size[a] += size[b]
        into[b], version[b] = a, -1
        version[a] += 1
        del beside[a][b], beside[b][a]
        for other, contact in beside[b].items():
            beside[a][other] = beside[other][a] = beside[a].get(other, 0) + contact
            del beside[other][b]
        others = np.array(sorted(beside[a]), np.int64)
        contacts = np.array([beside[a][other] for other in others.tolist()], np.int64)
        consider(np.minimum(a, others), np.maximum(a, others), contacts)
    return walk(into)


def tensions(
    distance: NDArray[np.float64], smaller: NDArray[np.float64], contact: Integers, ndim: int
) -> NDArray[np.float64]:
    """Tension to the power of `ndim`: (distance / contact) ** ndim * smaller ** (ndim - 1).

    smaller: pixels of the smaller group; its side is smaller ** ((ndim - 1) / ndim) pixels. In
    this order of products, which are rounded alike everywhere; powers are not.
    """
    of_pixel = distance / contact
    tension = of_pixel
    for _ in range(ndim - 1):
        tension = tension * (of_pixel * smaller)
    return tension


def distances(
    centre: NDArray[np.float64], first: Integers, second: Integers
) -> NDArray[np.float64]:
    """Euclidean, between rows; summed dimension by dimension, so that others can do the same."""
    squared = np.zeros(len(first))
    for values in centre.T:
        squared += (values[first] - values[second]) ** 2
    return np.sqrt(squared)


def along(axis: int, ndim: int) -> tuple[Slices, Slices]:
    """Slices to each pixel but the last along `axis`, and to its next neighbour."""
    low = tuple(slice(None, -1) if a == axis else slice(None) for a in range(ndim))
    high = tuple(slice(1, None) if a == axis else slice(None) for a in range(ndim))
    return low, high
