"""What other software loses on images whose size is off the grid of the network's period P.

    python benchmarks/off_grid.py CHECKPOINT DATA_FOLDER --split val [--limit N] [--json]

ilastik re-centres the last tile of every axis, JDLL (Fiji) shifts it back to the image's end; both
by a number of pixels that is a multiple of P only for some sizes. Every image is cropped at its end
to the largest sizes that leave a remainder of 0, 1, 3 or P when divided by 2P, along all axes::

    image    0                                       S
    cropped  |------------------------------------|         k * 2P + remainder
    tiles    |----------|----------|----------|             TILE pixels wide with their halo, as on
                                        |-----|             images too large for one

and predicted twice: exactly, by our own blocks, and under the consumer's placement. Both see the
same mirrored pixels beyond the border, so that only the phase differs. The row with remainder 0 is
the control: there the placements are exact, too.

Columns: tiles per image; share of the pixels where any channel is off by more than 0.1 sigma, the
largest difference and the root of the mean square in sigma, the standard deviation of the image's
exact embeddings; AP@0.5 against the truth of the exact labels and of
the placed ones (mean over images), and of the placed labels against the exact ones.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from packager.consumers import ilastik, jdll
from packager.consumers.placement import DeclaredAxis, Padding, Placement, Refusal
from packager.consumers.stitch import read_padded, stitch
from zoo_models.checkpoint import Checkpoint, SameSizeNetwork
from zoo_models.errors import InputError, SpocoZooError
from zoo_models.geometry import Box, TileGeometry
from zoo_models.metrics import score
from zoo_models.postprocessing import Clusterer, build_clusterer
from zoo_models.prediction.blocks import BlockGrid
from zoo_models.prediction.engine import TILE_LIMIT, predict_embeddings
from zoo_models.prediction.images import expect_image, read_image, read_labels
from zoo_models.splits import data_file, split_names

Array = NDArray[np.float32]

TILE = {2: 256, 3: 64}
"""Width of tiles by number of space axes, or the network's minimum where that is larger."""

WRONG = 0.1
"""In sigma; aligned placements stay below 1e-4."""


def remainders(period: int) -> tuple[int, ...]:
    """Of sizes divided by 2P: the control, the two smallest odd ones, and one period."""
    return tuple(sorted({0, 1, 3 % (2 * period), period}))


@dataclass(frozen=True)
class Model:
    """A checkpoint, ready to run."""

    checkpoint: Checkpoint
    network: SameSizeNetwork
    clusterer: Clusterer
    geometry: TileGeometry

    @classmethod
    def load(cls, path: Path) -> Model:
        checkpoint = Checkpoint.load(path)
        network: SameSizeNetwork = checkpoint.network()  # type: ignore[assignment]
        clusterer = build_clusterer(checkpoint.clusterer)
        return cls(checkpoint, network, clusterer, checkpoint.geometry)

    def run(self, tile: Array) -> Array:
        """One tile c(z)yx through the network."""
        with torch.inference_mode():
            answer: Array = self.network(torch.from_numpy(tile)[None])[0].numpy()
        return answer

    def exact(self, image: Array, padding: Padding) -> Array:
        """Embeddings D(z)yx by our own blocks, on the image with a consumer's mirrored border.

        The halo is a multiple of the period, so the border does not move the grid.
        """
        halo = self.geometry.halo
        box = Box.of_shape(image.shape[1:])
        wide = read_padded(image, box.grow(halo), padding)
        limit = TILE_LIMIT[self.geometry.ndim]
        grid = BlockGrid.covering(wide.shape[1:], self.geometry, tile_limit=limit)
        dim = self.checkpoint.embedding_dim
        embeddings = predict_embeddings(self.network, wide, grid, embedding_dim=dim)
        return embeddings[:, *box.shift(halo).slices]


@dataclass(frozen=True)
class Measurement:
    """One image, cropped, under one consumer."""

    consumer: str
    remainder: int
    tiles: int
    wrong_share: float
    largest_sigma: float
    rms_sigma: float
    exact_ap50: float
    placed_ap50: float
    agreement_ap50: float


def placements(geometry: TileGeometry, shape: Sequence[int], dim: int) -> Iterator[Placement]:
    """How the consumers tile an image (z)yx of `shape` pixels with several tiles."""
    limit = TILE[geometry.ndim]
    axes = [DeclaredAxis(a.minimum, a.step, a.halo) for a in geometry.axes]
    tile = tuple(a.largest_tile(limit) for a in geometry.axes)
    for name, place in (
        ("ilastik", partial(ilastik.place, target=limit, channels=dim)),
        ("JDLL", partial(jdll.place, tile=tile)),
    ):
        placement = place(axes, shape)
        if isinstance(placement, Refusal):
            size = " x ".join(map(str, shape))
            raise InputError(f"{name} cannot tile {size} pixels: {placement.reason}")
        yield placement


def measure(
    model: Model, image: Array, truth: NDArray[np.integer], *, remainder: int
) -> Iterator[Measurement]:
    """The image c(z)yx and its labels, both cropped already, under every consumer."""
    for placement in placements(model.geometry, truth.shape, model.checkpoint.embedding_dim):
        exact = model.exact(image, placement.padding)
        placed = stitch(model.run, image, placement).output
        difference = np.abs(placed - exact) / exact.std()
        labels, placed_labels = model.clusterer(exact), model.clusterer(placed)
        yield Measurement(
            consumer=placement.consumer.split()[0],
            remainder=remainder,
            tiles=len(placement),
            wrong_share=float((difference.max(axis=0) > WRONG).mean()),
            largest_sigma=float(difference.max()),
            rms_sigma=float(np.sqrt((difference**2).mean())),
            exact_ap50=score(labels, truth).ap50,
            placed_ap50=score(placed_labels, truth).ap50,
            agreement_ap50=score(placed_labels, labels).ap50,
        )


def measure_split(
    model: Model, folder: Path, split: str, *, limit: int | None
) -> Iterator[Measurement]:
    """All images of the split, each in every cropped size; progress goes to stderr."""
    names = split_names(folder, split)[:limit]
    for number, name in enumerate(names, start=1):
        print(f"{number}/{len(names)} {name}", file=sys.stderr)
        image = read_image(data_file(folder, "images", name))
        expect_image(image, axes=model.geometry.names, channels=model.checkpoint.in_channels)
        pixels = model.checkpoint.normalisation.apply(image.data)
        truth = read_labels(data_file(folder, "labels", name))
        for remainder in remainders(max(model.geometry.period)):
            window = cropped(truth.shape, model.geometry.period, remainder)
            yield from measure(model, pixels[:, *window], truth[window], remainder=remainder)


def cropped(shape: Sequence[int], period: Sequence[int], remainder: int) -> tuple[slice, ...]:
    """From the image's origin to the largest size of this remainder; modulo 2P where P is less."""
    sizes = [n - (n - remainder) % (2 * p) for n, p in zip(shape, period, strict=True)]
    if min(sizes) < 1:
        raise InputError(f"An image of {tuple(shape)} pixels is too small; leave it out.")
    return tuple(slice(0, size) for size in sizes)


def summarise(rows: Sequence[Measurement]) -> dict[str, float]:
    """Means over the images, weighted equally; the largest difference is that of all."""
    fields = [asdict(row) for row in rows]
    means = {
        key: float(np.mean([f[key] for f in fields]))
        for key in fields[0]
        if key not in ("consumer", "remainder", "largest_sigma")
    }
    largest = max(row.largest_sigma for row in rows)
    return {"images": len(rows), **means, "largest_sigma": largest}


def main(arguments: argparse.Namespace) -> None:
    model = Model.load(arguments.checkpoint)
    found = list(measure_split(model, arguments.folder, arguments.split, limit=arguments.limit))
    keys = sorted({(row.consumer, row.remainder) for row in found}, key=lambda k: (k[0].lower(), k))
    table = [
        (c, r, summarise([row for row in found if (row.consumer, row.remainder) == (c, r)]))
        for c, r in keys
    ]
    period = max(model.geometry.period)
    if arguments.json:
        images = [asdict(row) for row in found]
        rows = [{"consumer": c, "remainder": r, **values} for c, r, values in table]
        print(json.dumps({"period": period, "table": rows, "images": images}, indent=2))
        return
    _print(table, period=period, tile=TILE[model.geometry.ndim])


def _print(table: Sequence[tuple[str, int, dict[str, float]]], *, period: int, tile: int) -> None:
    print(f"period {period}, {table[0][2]['images']} images, tiles of {tile} pixels")
    print(
        f"{'consumer':9}{f'S % {2 * period}':>7}{'tiles':>7}{'wrong':>8}{'largest':>9}{'RMS':>9}"
        f"{'AP exact':>10}{'AP placed':>11}{'placed = exact':>16}"
    )
    for consumer, remainder, v in table:
        print(
            f"{consumer:9}{remainder:7}{v['tiles']:7.1f}{v['wrong_share']:8.1%}"
            f"{v['largest_sigma']:9.2g}{v['rms_sigma']:9.2g}{v['exact_ap50']:10.3f}"
            f"{v['placed_ap50']:11.3f}{v['agreement_ap50']:16.3f}"
        )


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Damage by off-grid image sizes.")
    parser.add_argument("checkpoint", type=Path, help="written by 'spoco-zoo train'")
    parser.add_argument("folder", type=Path, help="images/, labels/ and splits.json")
    parser.add_argument("--split", default="val")
    parser.add_argument("--limit", type=int, help="the first N images only")
    parser.add_argument("--json", action="store_true", help="print JSON, with every image")
    return parser


if __name__ == "__main__":
    try:
        main(parser().parse_args())
    except SpocoZooError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
