"""What one block of an image contributes to instances that may reach beyond it.

Basin merging (zoo_models/postprocessing/basin_merging.py) looks at neighbours, or at one table for
the whole image. So a block does what needs embeddings, and hands on small tables::

    read    +---------------------+     MARGIN pixels more than the block, but not beyond the image:
            | write +-----------+ |     the heights at its border, and what lies AHEAD steps
            |       |  a -> b   | |     downhill of its border, are those of the whole image
            |       |    c -----+-+-> d
            |       +-----------+ |     a walk that leaves the block ends at the first pixel
            +---------------------+     outside (d); which minimum that one leads to, its own
                                        block knows

A fragment is the pixels of a block whose walks end at the same pixel: at a minimum in the block, or
at a pixel of a neighbour's shell (tables.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo_models.geometry import Box
from zoo_models.postprocessing.basin_merging import (
    AHEAD,
    BasinMerging,
    Floats,
    Integers,
    Labels,
    Mask,
)
from zoo_models.prediction.tables import Table, shell_of

MARGIN = AHEAD + 3
"""Pixels of context on each side: a neighbour, AHEAD steps from there, 2 more for the height."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Fragments(Table):
    """The table of n fragments in one block; size counts the pixels that walk there.

    Attributes:
        end: (n,) the pixel at which the walks end, ascending.
        own: (n,) bool, whether it lies in this block, and so is a minimum.
        bottom: (n, D) float32 mean embedding around it.
        distance: (n,) summed distances from the background of the pixels that settle there.
        settled: (n,) pixels that settle there.
    """

    end: Integers
    own: Mask
    bottom: Floats
    distance: NDArray[np.float64]
    settled: Integers

    def ways_out(self, block: Box, shape: tuple[int, ...]) -> tuple[Integers, Integers]:
        """Also where the walks go on in another block."""
        rows, pixels = super().ways_out(block, shape)
        leaving = np.flatnonzero(~self.own)
        return np.concatenate([rows, leaving]), np.concatenate([pixels, self.end[leaving]])


def fragments(
    clusterer: BasinMerging,
    embeddings: Floats,
    read: Box,
    write: Box,
    shape: tuple[int, ...],
    *,
    foreground: Mask | None = None,
) -> tuple[Fragments, Labels, Floats]:
    """The block's table; of each pixel the fragment, a row from 1 on or 0; and its distance.

    embeddings: (D, [Z,] Y, X) of the box `read`, which is `write` grown by MARGIN within an image
    of `shape`; foreground: of the same pixels. The clusterer's background must be known.
    """
    distance, height = clusterer.landscape(embeddings, clusterer.background)
    inside = distance >= clusterer.radius
    if foreground is not None:
        inside &= foreground
    own = write.relative_to(read.start).slices
    target = clusterer.downhill(height, inside)
    stopped = np.arange(target.size).reshape(target.shape)
    stopped[own] = target[own]
    ends, at = clusterer.basins(stopped, inside)
    walked = np.ascontiguousarray(ends[own])
    settled = np.ascontiguousarray(clusterer.settled(embeddings, target, ends)[own])
    pixels = clusterer.sizes(walked, len(at) + 1) + clusterer.sizes(settled, len(at) + 1)
    used = np.flatnonzero(pixels[1:]) + 1
    row = np.zeros(len(at) + 1, np.int32)
    row[used] = np.arange(1, len(used) + 1)
    walked, settled = row[walked], row[settled]
    at = at[used - 1]
    place = np.stack(np.unravel_index(at, read.shape))
    in_block = np.all([(p >= s.start) & (p < s.stop) for p, s in zip(place, own, strict=True)], 0)
    first, second, contact = clusterer.touching(walked)
    kept, number = distance[own], len(used) + 1
    shell = shell_of(write, shape)
    fragment = walked.ravel()[flat_within(shell, shape, write)]
    start = np.array(read.start)[:, None]
    distances = np.bincount(settled.ravel(), weights=kept.ravel(), minlength=number)
    table = Fragments(
        end=np.ravel_multi_index(tuple(place + start), shape),
        own=in_block,
        bottom=clusterer.bottoms(embeddings, inside, at)[1:],
        size=clusterer.sizes(walked, number)[1:],
        distance=distances[1:].astype(np.float64),
        settled=clusterer.sizes(settled, number)[1:],
        first=first - 1,
        second=second - 1,
        contact=contact,
        shell=shell[fragment > 0],
        shell_row=fragment[fragment > 0].astype(np.int64) - 1,
    )
    return table, settled, np.ascontiguousarray(kept)


def flat_within(pixels: Integers, shape: tuple[int, ...], box: Box) -> Integers:
    """Flat indices into the box's own array, of pixels in it given by flat indices of the image."""
    place = np.stack(np.unravel_index(pixels, shape)) - np.array(box.start)[:, None]
    own: Integers = np.ravel_multi_index(tuple(place), box.shape)
    return own
