"""Instances of an image that is never in memory as a whole: the very labels of the whole image.

    pass 1   embeddings of a block -> finished instances, open fragments     (enclosed.py)
             tables of all blocks  -> which open fragments are one group     (merge.py)
    pass 2   fragments of a block  -> parts: connected, rim or solid
             tables of all blocks  -> which parts are one instance
    pass 3   parts of a block      -> labels

In memory are one block, or tables of what touches (portions.py), and one number of each instance
and part; planes of pixels wait in a scratch between the passes. What the scratch holds already is
not done again, so a run that was cut goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from zoo_models.errors import GeometryError
from zoo_models.geometry import Box
from zoo_models.postprocessing.basin_merging import BasinMerging, Labels
from zoo_models.prediction.enclosed import BlockFragments
from zoo_models.prediction.fragments import MARGIN, Fragments
from zoo_models.prediction.memory_meter import give_back
from zoo_models.prediction.merge import (
    Groups,
    Parts,
    merge_fragments,
    merge_parts,
    parts,
    with_zero,
)
from zoo_models.prediction.portions import portions
from zoo_models.prediction.schedule import Schedule
from zoo_models.prediction.tables import Table

Arrays = Mapping[str, NDArray[Any]]
Scratch = MutableMapping[str, Arrays]
"""Named arrays under a key: a dict, or files (scratch.py)."""

Work = Callable[[str, Box], None]
"""Does one step for one block."""

Kept = TypeVar("Kept", Fragments, Groups, Parts)


@dataclass(frozen=True, eq=False)
class Passes:
    """The steps for one block each; whatever carries them out needs this object and a scratch.

    first: a block's own work on its embeddings. write: takes each block's labels, int32, numbered
    1, 2, ... over the whole image in the order of their first pixels, from `numbered` + 1 on; what
    it gives back is kept as "written/...". lock: held while the clusterer computes, as its loops
    have threads of their own. most: rows of tables that are merged at once, unless more touch.
    """

    clusterer: BasinMerging
    shape: tuple[int, ...]
    first: Callable[[Box], BlockFragments]
    write: Callable[[Box, Labels], Arrays]
    scratch: Scratch
    lock: AbstractContextManager[Any] = field(default_factory=nullcontext)
    most: int = 2**14

    def do(self, step: str, block: Box) -> None:
        """One of the three passes for one block."""
        {"fragments": self.fragments, "parts": self.parts, "labels": self.labels}[step](block)

    def fragments(self, block: Box) -> None:
        """Pass 1. The table is written last: where it is, the block is done."""
        found = self.first(block)
        self.scratch[f"finished/{_name(block)}"] = {"label": found.label, "start": found.start}
        if len(found.table):
            planes = {"fragment": found.fragment, "distance": found.distance}
            self.scratch[f"planes/{_name(block)}"] = planes
        self.scratch[f"fragments/{_name(block)}"] = _arrays(found.table)

    def parts(self, block: Box) -> None:
        """Pass 2, for blocks with open fragments."""
        groups = _table(Groups, self.scratch[f"groups/{_name(block)}"])
        planes = self.scratch[f"planes/{_name(block)}"]
        with self.lock:
            table, part = parts(
                self.clusterer,
                groups,
                planes["fragment"],
                planes["distance"],
                block,
                self.shape,
            )
        self.scratch[f"part/{_name(block)}"] = {"part": part}
        self.scratch[f"parts/{_name(block)}"] = _arrays(table)
        self.scratch.pop(f"planes/{_name(block)}", None)

    def labels(self, block: Box) -> None:
        """Pass 3."""
        number = self.scratch[f"numbers/{_name(block)}"]
        finished = self.scratch[f"finished/{_name(block)}"]["label"]
        part = self.scratch.get(f"part/{_name(block)}", {}).get("part")
        with self.lock:
            labels = self.clusterer.painted(finished, number["finished"])
            if part is not None:
                labels += self.clusterer.painted(part, number["part"])
        self.scratch[f"written/{_name(block)}"] = self.write(block, labels)
        for key in ("finished", "part"):
            self.scratch.pop(f"{key}/{_name(block)}", None)


def cluster_blocks(
    passes: Passes,
    blocks: Sequence[Box],
    schedule: Schedule,
    *,
    work: Work | None = None,
    numbered: int = 0,
) -> int:
    """Cluster an image block by block; returns the number of instances.

    blocks: boxes that partition the image, in any order. work: does what `passes.do` does, perhaps
    in another process; by default it is that. numbered: instances that other images have.

    Raises:
        GeometryError: the blocks do not partition a box that begins at the origin.
    """
    if expect_partition(blocks) != passes.shape:
        raise GeometryError(f"The blocks end at {expect_partition(blocks)}, not at {passes.shape}.")
    scratch, work = passes.scratch, work or passes.do
    schedule("fragments", work, _missing(scratch, "fragments", blocks))
    if "groups" not in scratch:
        give_back()  # what embeddings took is of no use to tables
        _group(passes, blocks)
        scratch["groups"] = {}
    crossed = [block for block in blocks if f"groups/{_name(block)}" in scratch]
    schedule("parts", work, _missing(scratch, "parts", crossed))
    if "numbers" not in scratch:
        give_back()
        scratch["numbers"] = {"total": np.array(_number(passes, blocks, crossed, numbered))}
    schedule("labels", work, _missing(scratch, "written", blocks))
    return int(scratch["numbers"]["total"])


def _group(passes: Passes, blocks: Sequence[Box]) -> None:
    """Group all open fragments; blocks without any get no groups.

    Groups of different portions may have one number, as they touch nowhere.
    """
    scratch, clusterer, shape = passes.scratch, passes.clusterer, passes.shape
    begun: dict[Box, Groups] = {}
    missing: dict[Box, int] = {}

    def read(block: Box) -> Fragments:
        return _table(Fragments, scratch[f"fragments/{_name(block)}"])

    for shares in portions(clusterer, blocks, read, shape, most=passes.most):
        found = merge_fragments(clusterer, {s.block: s.table for s in shares}, shape)
        for share, groups in zip(shares, found, strict=True):
            block, rows = share.block, len(share.rows)
            if block not in begun:
                begun[block] = Groups(np.zeros(rows + 1, np.int32), np.zeros(rows + 1))
                missing[block] = rows
            begun[block].group[1:][share.rows] = groups.group[1:]
            begun[block].limit[1:][share.rows] = groups.limit[1:]
            missing[block] -= len(share.table)
            if missing[block] == 0:
                scratch[f"groups/{_name(block)}"] = _arrays(begun.pop(block))


def _number(passes: Passes, blocks: Sequence[Box], crossed: Sequence[Box], numbered: int) -> int:
    """Number finished instances and those of parts in the order of their first pixels."""
    scratch, clusterer, shape = passes.scratch, passes.clusterer, passes.shape
    starts = [scratch[f"finished/{_name(block)}"]["start"] for block in blocks]
    instance: dict[Box, Labels] = {}
    number = 0

    def read(block: Box) -> Parts:
        return _table(Parts, scratch[f"parts/{_name(block)}"])

    for shares in portions(clusterer, crossed, read, shape, most=passes.most):
        found, start = merge_parts(clusterer, {s.block: s.table for s in shares}, shape)
        for share, label in zip(shares, found, strict=True):
            of_part = instance.setdefault(share.block, np.zeros(len(share.rows), np.int32))
            of_part[share.rows] = np.where(label > 0, label + number, 0)
        starts.append(start)
        number += len(start)
    every = np.concatenate(starts)
    rank = np.empty(len(every), np.int32)
    rank[np.argsort(every)] = np.arange(1, len(every) + 1) + numbered
    offsets = np.cumsum([0, *map(len, starts)])
    of_instance = with_zero(rank[offsets[len(blocks)] :])
    none = np.zeros(0, np.int32)
    for block, begin, end in zip(blocks, offsets, offsets[1:], strict=False):
        scratch[f"numbers/{_name(block)}"] = {
            "finished": with_zero(rank[begin:end]),
            "part": with_zero(of_instance[instance.get(block, none)]),
        }
    return len(every)


def written(scratch: Scratch, block: Box) -> Arrays:
    """What `write` gave back for a block."""
    return scratch[f"written/{_name(block)}"]


def _missing(scratch: Scratch, key: str, blocks: Iterable[Box]) -> list[Box]:
    return [block for block in blocks if f"{key}/{_name(block)}" not in scratch]


def _name(block: Box) -> str:
    return "_".join(map(str, block.start))


def _arrays(table: Table | Groups) -> dict[str, NDArray[Any]]:
    return {field.name: getattr(table, field.name) for field in fields(table)}


def _table(kind: type[Kept], arrays: Arrays) -> Kept:
    return kind(**arrays)


def expect_partition(blocks: Sequence[Box]) -> tuple[int, ...]:
    """The shape of the image that the blocks make up.

    Raises:
        GeometryError: pixels in no block, or in several; blocks that are no cells of a grid.
    """
    if not blocks:
        raise GeometryError("No blocks, expected boxes that make up the image.")
    shape = tuple(max(stops) for stops in zip(*(b.stop for b in blocks), strict=True))
    covered = sum(block.size for block in blocks)
    starts = {block.start for block in blocks}
    cells = int(np.prod([len(set(along)) for along in zip(*starts, strict=True)]))
    if covered != int(np.prod(shape)) or not len(starts) == len(blocks) == cells:
        raise GeometryError(
            f"{len(blocks)} blocks cover {covered} pixels of an image of shape {shape}: expected "
            "each pixel in one block, from the origin on, and the blocks in rows and columns."
        )
    return shape


def partition(shape: Sequence[int], size: Sequence[int]) -> list[Box]:
    """Boxes of at most `size` pixels per axis that make up an image of `shape`, in raster order."""
    starts = np.stack(
        np.meshgrid(*(np.arange(0, n, s) for n, s in zip(shape, size, strict=True)), indexing="ij"),
        axis=-1,
    ).reshape(-1, len(shape))
    return [
        Box(
            tuple(map(int, start)),
            tuple(int(min(a + s, n)) for a, s, n in zip(start, size, shape, strict=True)),
        )
        for start in starts
    ]


def grown(block: Box, shape: Sequence[int]) -> Box:
    """The block with MARGIN pixels more on each side, within the image."""
    return Box(
        tuple(max(0, a - MARGIN) for a in block.start),
        tuple(min(n, b + MARGIN) for b, n in zip(block.stop, shape, strict=True)),
    )
