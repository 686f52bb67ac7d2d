"""Scores of an instance segmentation against the truth.

Everything is computed from one sparse contingency table (contingency.py).
Label 0 is the background in both images and never an instance.

    matched   IoU > t, strictly; from t = 0.5 on a partner is unique
    AP@t      TP / (TP + FP + FN); mean AP over t = 0.50, 0.55, ..., 0.95
    SBD       the smaller of the two mean best Dice scores (Scharr et al. 2016)
    |DiC|     absolute difference in count
    ARand     1 - 2 sum p_ij^2 / (sum s_i^2 + sum t_j^2) (Arganda-Carreras et al. 2015)
    splits    true instances with more than one prediction at IoU > 0.1 (Caicedo et al. 2019)
    merges    predictions with more than one true instance at IoU > 0.1
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from zoo_models.contingency import (
    Contingency,
    IntArray,
    LabelArray,
    Overlaps,
    contingency,
    overlaps,
)
from zoo_models.errors import ImageError

__all__ = [
    "DatasetScores",
    "Scores",
    "adapted_rand_error",
    "aggregate",
    "contingency",
    "count_matches",
    "false_splits_and_merges",
    "score",
    "symmetric_best_dice",
]

AP_THRESHOLDS: tuple[float, ...] = tuple(twentieth / 20 for twentieth in range(10, 20))
SPLIT_MERGE_IOU = 0.1


@dataclass(frozen=True)
class Scores:
    """Scores of one image; precision and recall are at IoU > 0.5, as `ap50`."""

    ap50: float
    mean_ap: float
    sbd: float
    dic: int
    arand_error: float
    false_splits: int
    false_merges: int
    precision50: float
    recall50: float
    true_instances: int
    predicted_instances: int
    matched50: int

    def as_dict(self) -> dict[str, float]:
        """Field name -> value, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class DatasetScores:
    """Scores of a set of images.

    Main convention: `ap50`, `mean_ap`, `sbd`, `dic`, `arand_error`, `precision50` and
    `recall50` are means over the images of the score of each image, whatever the number of
    its instances. Second number: `pooled_ap50` counts TP, FP and FN over all images first.
    Splits, merges and numbers of instances are totals.
    """

    images: int
    ap50: float
    pooled_ap50: float
    mean_ap: float
    sbd: float
    dic: float
    arand_error: float
    false_splits: int
    false_merges: int
    precision50: float
    recall50: float
    true_instances: int
    predicted_instances: int
    matched50: int

    def as_dict(self) -> dict[str, float]:
        """Field name -> value, ready for JSON."""
        return asdict(self)


def score(predicted: LabelArray, truth: LabelArray) -> Scores:
    """Score the predicted labels of one image, (z)yx or any other shape, against the truth.

    Two empty images agree: AP and SBD are 1, the ARand error is 0. When only one of them is
    empty, AP, SBD, precision and recall are 0.

    Raises:
        ImageError: other shapes, labels that are not integers, negative labels.
    """
    table = contingency(predicted, truth)
    pairs = overlaps(table)
    n_predicted, n_truth = table.predicted_count, table.truth_count
    matched = [count_matches(pairs, threshold) for threshold in AP_THRESHOLDS]
    precisions = [_ratio(tp, n_predicted + n_truth - tp) for tp in matched]
    splits, merges = false_splits_and_merges(pairs)
    return Scores(
        ap50=precisions[0],
        mean_ap=float(np.mean(precisions)),
        sbd=symmetric_best_dice(pairs, n_predicted, n_truth),
        dic=abs(n_predicted - n_truth),
        arand_error=adapted_rand_error(table),
        false_splits=splits,
        false_merges=merges,
        precision50=matched[0] / n_predicted if n_predicted else float(n_truth == 0),
        recall50=matched[0] / n_truth if n_truth else float(n_predicted == 0),
        true_instances=n_truth,
        predicted_instances=n_predicted,
        matched50=matched[0],
    )


def aggregate(scores: Sequence[Scores]) -> DatasetScores:
    """Scores of a data set from the scores of its images; see DatasetScores.

    Raises:
        ImageError: no image was scored.
    """
    if not scores:
        raise ImageError("found no scored image, expected at least one: give images to score")
    columns = {f.name: [getattr(s, f.name) for s in scores] for f in fields(Scores)}
    matched, true, predicted = (
        sum(columns[name]) for name in ("matched50", "true_instances", "predicted_instances")
    )
    return DatasetScores(
        images=len(scores),
        ap50=float(np.mean(columns["ap50"])),
        pooled_ap50=_ratio(matched, true + predicted - matched),
        mean_ap=float(np.mean(columns["mean_ap"])),
        sbd=float(np.mean(columns["sbd"])),
        dic=float(np.mean(columns["dic"])),
        arand_error=float(np.mean(columns["arand_error"])),
        false_splits=sum(columns["false_splits"]),
        false_merges=sum(columns["false_merges"]),
        precision50=float(np.mean(columns["precision50"])),
        recall50=float(np.mean(columns["recall50"])),
        true_instances=true,
        predicted_instances=predicted,
        matched50=matched,
    )


def count_matches(pairs: Overlaps, threshold: float) -> int:
    """Number of matches (true positives) at IoU > `threshold`, which must be >= 0.5.

    Two instances of one image are disjoint, so above one half no instance has two partners
    and no assignment problem is left to solve.
    """
    if threshold < 0.5:
        raise ValueError(f"threshold {threshold} is below 0.5, where partners are not unique")
    return int(np.count_nonzero(pairs.iou > threshold))


def symmetric_best_dice(pairs: Overlaps, n_predicted: int, n_truth: int) -> float:
    """Smaller of the mean best Dice seen from the predicted and from the true instances.

    No smoothing term. 1 when both images are empty, 0 when one is.
    """
    if n_predicted == 0 or n_truth == 0:
        return float(n_predicted == n_truth)
    return min(
        _best_per_index(pairs.predicted_index, pairs.dice) / n_predicted,
        _best_per_index(pairs.truth_index, pairs.dice) / n_truth,
    )


def adapted_rand_error(table: Contingency) -> float:
    """1 - 2 sum p_ij^2 / (sum s_i^2 + sum t_j^2) over the pixels with true label != 0.

    Predicted label 0 counts as one more segment there, as in scikit-image; unlike there a
    pixel also forms a pair with itself, as in the published formula, so one pixel can be
    scored. Without any true instance the formula is 0/0: then 0 for an empty prediction,
    1 for any other.
    """
    if table.truth_count == 0:
        return float(table.predicted_count > 0)
    foreground = table.truth_ids[table.truth_index] != 0
    # Floats: the squares of large sizes, summed, pass the range of 64-bit integers.
    p = table.overlap[foreground].astype(np.float64)
    s = np.bincount(table.predicted_index[foreground], weights=p)
    t = np.bincount(table.truth_index[foreground], weights=p)
    return float(1.0 - 2.0 * (p @ p) / (s @ s + t @ t))


def false_splits_and_merges(pairs: Overlaps) -> tuple[int, int]:
    """Numbers of true instances split and of predictions that merge, at IoU > 0.1."""
    touching = pairs.iou > SPLIT_MERGE_IOU
    splits = np.count_nonzero(np.bincount(pairs.truth_index[touching]) > 1)
    merges = np.count_nonzero(np.bincount(pairs.predicted_index[touching]) > 1)
    return int(splits), int(merges)


def _ratio(part: int, whole: int) -> float:
    """part / whole, and 1 when there was nothing to find and nothing was found."""
    return part / whole if whole else 1.0


def _best_per_index(index: IntArray, values: NDArray[np.float64]) -> float:
    """Sum over the indices of the largest value at each; values are > 0."""
    best = np.zeros(int(index.max()) + 1 if index.size else 0)
    np.maximum.at(best, index, values)
    return float(best.sum())
