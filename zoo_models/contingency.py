"""The contingency table: how many pixels each predicted and true label share.

    truth      1 1 2         (predicted, truth): pixels
    predicted  7 7 7    ->   (7, 1): 2 · (7, 2): 1

Only pairs that occur are kept, so the table is as small as the segmentation is good.
All scores of metrics.py are computed from it. Label 0 is the background.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo_models.errors import ImageError

IntArray = NDArray[np.int64]
LabelArray = NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Contingency:
    """Sparse table of the pixels that predicted and true labels share.

    `predicted_ids` and `truth_ids` are ascending and hold 0 where it occurs; sizes are in
    pixels, in the same order. Entry k says: `overlap[k]` > 0 pixels have the label
    `predicted_ids[predicted_index[k]]` and the true label `truth_ids[truth_index[k]]`.
    """

    predicted_ids: LabelArray
    truth_ids: LabelArray
    predicted_sizes: IntArray
    truth_sizes: IntArray
    predicted_index: IntArray
    truth_index: IntArray
    overlap: IntArray

    @property
    def predicted_count(self) -> int:
        """Number of predicted instances."""
        return int(np.count_nonzero(self.predicted_ids))

    @property
    def truth_count(self) -> int:
        """Number of true instances."""
        return int(np.count_nonzero(self.truth_ids))


@dataclass(frozen=True)
class Overlaps:
    """The pairs of instances that share pixels, background left out; all arrays 1D."""

    predicted_index: IntArray
    truth_index: IntArray
    iou: NDArray[np.float64]
    dice: NDArray[np.float64]


def contingency(predicted: LabelArray, truth: LabelArray) -> Contingency:
    """Count the pixels of every pair of labels, in time linear in the number of pixels.

    Args:
        predicted: integer labels >= 0 of any shape and dimension; ids may have gaps.
        truth: the same, of the same shape.

    Raises:
        ImageError: other shapes, labels that are not integers, negative labels.
    """
    _expect_labels(predicted, "predicted")
    _expect_labels(truth, "true")
    if predicted.shape != truth.shape:
        raise ImageError(
            f"predicted labels have the shape {predicted.shape}, true labels {truth.shape}; "
            "expected equal shapes: compare labels of the same image"
        )
    predicted_ids, p = _compact(predicted)
    truth_ids, t = _compact(truth)
    pairs, overlap = _count(p * len(truth_ids) + t)
    predicted_index, truth_index = np.divmod(pairs, max(len(truth_ids), 1))
    return Contingency(
        predicted_ids=predicted_ids,
        truth_ids=truth_ids,
        predicted_sizes=np.bincount(p, minlength=len(predicted_ids)),
        truth_sizes=np.bincount(t, minlength=len(truth_ids)),
        predicted_index=predicted_index,
        truth_index=truth_index,
        overlap=overlap,
    )


def overlaps(table: Contingency) -> Overlaps:
    """IoU and Dice of every pair of instances that share pixels."""
    instances = (table.predicted_ids[table.predicted_index] != 0) & (
        table.truth_ids[table.truth_index] != 0
    )
    p, t = table.predicted_index[instances], table.truth_index[instances]
    shared = table.overlap[instances]
    both = table.predicted_sizes[p] + table.truth_sizes[t]
    return Overlaps(
        predicted_index=p, truth_index=t, iou=shared / (both - shared), dice=2 * shared / both
    )


def _expect_labels(labels: LabelArray, whose: str) -> None:
    if not np.issubdtype(labels.dtype, np.integer):
        raise ImageError(
            f"{whose} labels are {labels.dtype}, expected integers: "
            "give label images, where every instance has its own whole number"
        )
    if labels.size and labels.min() < 0:
        raise ImageError(
            f"{whose} labels go down to {labels.min()}, expected 0 (background) or more: "
            "relabel the image"
        )


def _compact(labels: LabelArray) -> tuple[LabelArray, IntArray]:
    """Ascending distinct ids, and for every pixel (flat) the index of its id."""
    flat = labels.reshape(-1)
    if flat.size == 0 or int(flat.max()) > 2 * flat.size + 65536:
        ids, inverse = np.unique(flat, return_inverse=True)  # few pixels, large ids: sort
        return ids, inverse.astype(np.int64, copy=False).reshape(-1)
    flat = flat.astype(np.int64, copy=False)
    present = np.bincount(flat) > 0
    return np.flatnonzero(present), (np.cumsum(present) - 1)[flat]


def _count(keys: IntArray) -> tuple[IntArray, IntArray]:
    """Distinct keys, ascending, and how often each occurs."""
    distinct, index = _compact(keys)
    return distinct.astype(np.int64, copy=False), np.bincount(index, minlength=len(distinct))
