"""Figs. 2, 4 and 5 and the supplement's experiments: networks trained on one synthetic picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.experiments.shift_equivariance import figures
from training.experiments.shift_equivariance.counting import (
    answer_to,
    different,
    groups,
    ids_in_window,
    most_instances,
)
from training.experiments.shift_equivariance.learn import Trained, bent, learn
from training.experiments.shift_equivariance.measured import Conditions, Measured
from training.experiments.shift_equivariance.pictures import Discs, Ones
from training.experiments.shift_equivariance.setups import DELTA_D, Setup
from training.experiments.shift_equivariance.stitching import (
    SAME,
    Array,
    Difference,
    in_one_pass,
    in_tiles,
)
from zoo_models.checkpoint import ClustererSettings
from zoo_models.geometry import Box
from zoo_models.metrics import score
from zoo_models.postprocessing import build_clusterer

FULL = {
    "same-phase": Setup("same-phase", Discs(16, 5), 3, "learnt", 128, 2000, 5e-4, cells=8),
    "coprime-learnt": Setup("coprime-learnt", Discs(15, 5), 3, "learnt", 128, 12000, 5e-4, cells=8),
    "coprime-fixed": Setup("coprime-fixed", Discs(15, 5), 3, "nearest", 128, 12000, 5e-4, cells=8),
    "window-P": Setup("window-P", Discs(13, 5), 4, "learnt", 16, 4000, 5e-4, shifts=81),
    "window-above-P": Setup("window-above-P", Discs(13, 5), 4, "learnt", 20, 6000, 5e-4, shifts=81),
    "ones-learnt": Setup("ones-learnt", Ones(), 4, "learnt", 32, 2000, 1e-3),
    "ones-fixed": Setup("ones-fixed", Ones(), 2, "nearest", 32, 500, 1e-3),
    "ones-padded": Setup("ones-padded", Ones(), 2, "nearest", 40, 10000, 1e-3, padding="same"),
    "noise": Setup("noise", Discs(16, 5), 4, "learnt", 52, 10000, 5e-4, shifts=57, noise=0.1),
    "elastic": Setup(
        "elastic", Discs(16, 5), 4, "learnt", 48, 10000, 5e-4, shifts=49, elastic=True
    ),
}
"""The paper's networks, pictures and windows. Its steps (2,000 to 400,000 at 5e-5 to 1e-4) are cut
by a learning rate that is five to twenty times higher."""

QUICK = {
    "same-phase": Setup("same-phase", Discs(8, 2), 2, "learnt", 32, 200, 1e-3, 8, cells=4),
    "coprime-learnt": Setup("coprime-learnt", Discs(7, 2), 2, "learnt", 28, 1500, 1e-3, 8, cells=4),
    "coprime-fixed": Setup("coprime-fixed", Discs(7, 2), 2, "nearest", 28, 1500, 1e-3, 8, cells=4),
    "window-P": Setup("window-P", Discs(7, 2), 3, "learnt", 8, 2000, 1e-3, 8, shifts=56),
    "window-above-P": Setup(
        "window-above-P", Discs(7, 2), 3, "learnt", 12, 4000, 1e-3, 8, shifts=56
    ),
    "ones-learnt": Setup("ones-learnt", Ones(), 3, "learnt", 16, 1000, 1e-3, 4),
    "ones-fixed": Setup("ones-fixed", Ones(), 2, "nearest", 8, 100, 1e-3, 4),
    "ones-padded": Setup("ones-padded", Ones(), 2, "nearest", 16, 1500, 1e-3, 8, padding="same"),
    "noise": Setup("noise", Discs(8, 2), 3, "learnt", 20, 1500, 1e-3, 8, shifts=56, noise=0.1),
    "elastic": Setup(
        "elastic", Discs(8, 2), 3, "learnt", 16, 800, 1e-3, 8, shifts=56, elastic=True
    ),
}
"""The same questions with a shorter period, smaller discs and half the feature maps."""

TORN = DELTA_D / 2
"""A disc is torn when its embeddings fall into groups this far apart; the clusterer's bandwidth."""

PANEL = 300
"""About so many pixels per side has a panel of a picture."""

CELLS = 8
"""Cells per side of the picture that is stitched: seen by the clusterer as a whole."""


def trained(name: str, conditions: Conditions) -> Trained:
    """The network of a setup, in the quick or the full size."""
    setup = (QUICK if conditions.quick else FULL)[name]
    folder = conditions.networks / ("quick" if conditions.quick else "full")
    return learn(setup, folder, seed=conditions.seed, progress=conditions.progress)


def separation(name: str, conditions: Conditions) -> Measured:
    """Fig. 2: how many of the P^d discs get embeddings of their own."""
    made = trained(name, conditions)
    setup = made.setup
    assert isinstance(setup.picture, Discs)
    answer = _answer(made, setup.window)
    labels = setup.picture.labels(Box((0, 0), (setup.window,) * 2))
    middles = setup.picture.centres(setup.cells)
    ids = labels[np.ix_(middles, middles)].ravel()
    means = np.stack([answer[:, labels == i].mean(axis=1) for i in ids]).astype(np.float64)
    bound = most_instances([setup.period] * 2, [setup.picture.spacing] * 2)
    row = {
        **_asked(made),
        "spacing": setup.picture.spacing,
        "instances": len(ids),
        "bound": bound,
        "different": different(means, spread=float(answer.std(axis=(1, 2)).max())),
        "separated": groups(means, DELTA_D),
    }
    picture = figures.embedding_picture(answer)
    on_black = np.where(labels[..., None] > 0, picture, np.uint8(0))
    return Measured(
        [row],
        {
            f"{bound} of {len(ids)} discs are separated": row["separated"] == bound,
            "no more discs differ than the bound allows": row["different"] <= bound,
        },
        {f"{name}.png": figures.panels([picture, on_black], enlarge=PANEL // setup.window)},
        notes=(f"Separated: means more than {DELTA_D:g} apart (the loss asks for twice that).",),
    )


def tiling(name: str, conditions: Conditions, *, on_grid: bool, consistent: bool) -> Measured:
    """Fig. 4 and supplement 3: tiles of several widths against one pass over the whole.

    on_grid: the figure is about tiles as wide as the training's window, cropped to n * P or not.
    consistent: whether tiles of that width are to give instances without false splits.
    """
    made = trained(name, conditions)
    setup = made.setup
    assert isinstance(setup.picture, Discs)
    shape = (CELLS * setup.picture.spacing,) * 2
    image, labels = _scene(setup, shape, seed=conditions.seed)
    margin = shape[0] + 2 * setup.axis.shrink

    def read(box: Box) -> Array:
        return image[:, *box.shift((margin, margin)).slices]

    whole = in_one_pass(made.network, setup.axis, read, shape)
    tile_shown = setup.window - setup.window % setup.period if on_grid else setup.window
    rows, answers = [], {}
    for tile in _widths(setup.period, tile_shown):
        answers[tile] = in_tiles(made.network, setup.axis, read, shape, tile)
        rows.append(_tile_row(setup, tile, answers[tile], whole, labels))
    rows.append({**_tile_row(setup, shape[0], whole, whole, labels), "tile": "whole"})
    parts = [
        figures.with_lines(figures.embedding_picture(answers[tile_shown]), tile_shown),
        figures.label_picture(instances(answers[tile_shown])),
        figures.embedding_picture(whole),
    ]
    by_tile = {row["tile"]: row for row in rows}
    torn, torn_whole = (by_tile[tile]["torn discs"] for tile in (tile_shown, "whole"))
    return Measured(
        [{**_asked(made), **row} for row in rows],
        {
            "tiles equal the whole where they are n * P wide": all(
                r["largest difference"] <= SAME for r in rows if r["n * P"]
            ),
            "and differ where they are not": all(
                r["largest difference"] > SAME for r in rows if not r["n * P"]
            ),
            **_torn_statement(tile_shown, torn, torn_whole, on_grid=on_grid, consistent=consistent),
        },
        {f"{name}-tile-{tile_shown}.png": figures.panels(parts)},
        notes=(
            "Largest difference: from one pass over the whole, in standard deviations.",
            f"Torn: a disc with embeddings in two groups, {TORN:g} apart or more.",
        ),
    )


def _torn_statement(
    tile: int, torn: int, torn_whole: int, *, on_grid: bool, consistent: bool
) -> dict[str, bool]:
    """On the grid tiles tear what the whole does; whether that is nothing depends on training."""
    if consistent:
        return {f"tiles of {tile} pixels tear no disc that the whole does not": torn == torn_whole}
    if on_grid:
        return {f"tiles of {tile} pixels tear discs, and so does the whole": 0 < torn == torn_whole}
    return {f"tiles of {tile} pixels tear more discs than the whole": torn > torn_whole}


def ids(name: str, conditions: Conditions) -> Measured:
    """Fig. 5, its counter-example and supplement 2: a place of its own for pixels of ones."""
    made = trained(name, conditions)
    setup = made.setup
    answer = _answer(made, setup.window)
    same = setup.padding == "same"
    side = setup.window if same else setup.period
    vectors = ids_in_window(answer, (side, side))
    spread = float(np.abs(answer).max())
    bound = side**2 if same or setup.upsampling == "learnt" else 1
    row = {
        **_asked(made),
        "upsampling": setup.upsampling,
        "padding": setup.padding,
        "pixels": len(vectors),
        "ids allowed": bound,
        "ids": different(vectors, spread=spread),
        "ids further apart than delta_d": groups(vectors, DELTA_D),
    }
    return Measured(
        [row],
        {f"{bound} {'id' if bound == 1 else 'ids'} in {side} x {side} pixels": row["ids"] == bound},
        {
            f"{name}.png": figures.panels(
                [figures.embedding_picture(answer)], enlarge=PANEL // setup.window
            )
        },
        notes=("All pixels of the picture are 1; each is an instance for the loss.",),
    )


def instances(answer: Array) -> NDArray[np.int32]:
    """Labels yx of an answer 3yx: mean-shift, as in the paper; the largest cluster is background.

    The bandwidth is half the push term's margin: training pulls without one (delta_v = 0).
    """
    settings = {"delta_v": TORN, "delta_d": DELTA_D, "min_size": 3}
    return build_clusterer(ClustererSettings("mean_shift", settings))(answer)


def _asked(made: Trained) -> dict[str, Any]:
    """What all rows begin with."""
    setup = made.setup
    return {"P": setup.period, "w": setup.window, "steps": setup.steps, "loss": made.loss}


def _answer(made: Trained, window: int) -> Array:
    """The answer 3yx to what training saw, `window` pixels per side."""
    axis = made.setup.axis
    box = Box((0, 0), (made.setup.read - 2 * axis.shrink,) * 2).grow((axis.shrink,) * 2)
    return answer_to(made.network, made.setup.picture.image(box))[:, :window, :window]


def _scene(setup: Setup, shape: tuple[int, int], *, seed: int) -> tuple[Array, NDArray[np.int64]]:
    """An image cyx that reaches as far beyond `shape` as any tile, and labels of `shape`."""
    margin = shape[0] + 2 * setup.axis.shrink
    box = Box((0, 0), shape)
    first = -(-margin // setup.picture.spacing) * setup.picture.spacing  # type: ignore[union-attr]
    image = setup.picture.image(box.grow((margin, margin)))
    labels = setup.picture.labels(box.shift((first, first)).grow((margin, margin)))
    random = np.random.default_rng((seed, 1))
    if setup.elastic:
        image, labels = bent(image, labels, seed=int(random.integers(2**31)))
    if setup.noise:
        image = image + random.normal(0, setup.noise, image.shape).astype(np.float32)
    inside = tuple(slice(margin, margin + n) for n in shape)
    return image, labels[inside]


def _widths(period: int, shown: int) -> Sequence[int]:
    """Tile widths on and off the grid, up to three periods."""
    quarter = period // 4
    widths = {period + quarter * k for k in (-1, 0, 1, 2, 3, 4, 5, 8)}
    return sorted(widths | {shown})


def _tile_row(
    setup: Setup, tile: int, answer: Array, whole: Array, labels: NDArray[np.int64]
) -> dict[str, Any]:
    difference = Difference.between(answer, whole)
    scores = score(instances(answer), labels)
    discs = [answer[:, labels == i].T.astype(np.float64) for i in np.unique(labels[labels > 0])]
    return {
        "tile": tile,
        "n * P": tile % setup.period == 0 or answer is whole,
        "largest difference": difference.largest,
        "wrong pixels": difference.wrong,
        "discs": len(discs),
        "torn discs": sum(groups(pixels, TORN) > 1 for pixels in discs),
        "false splits": scores.false_splits,
        "AP@0.5": scores.ap50,
    }


EXPERIMENTS: Mapping[str, Callable[[Conditions], Measured]] = {
    "fig2a": partial(separation, "same-phase"),
    "fig2b": partial(separation, "coprime-learnt"),
    "fig2c": partial(separation, "coprime-fixed"),
    "fig4a": partial(tiling, "window-P", on_grid=True, consistent=False),
    "fig4b": partial(tiling, "window-above-P", on_grid=False, consistent=False),
    "fig4c": partial(tiling, "window-above-P", on_grid=True, consistent=True),
    "fig5": partial(ids, "ones-learnt"),
    "fig5-fixed": partial(ids, "ones-fixed"),
    "supp2": partial(ids, "ones-padded"),
    "supp3a": partial(tiling, "noise", on_grid=True, consistent=True),
    "supp3b": partial(tiling, "elastic", on_grid=True, consistent=True),
    "supp3c": partial(tiling, "noise", on_grid=False, consistent=False),
}
