"""The scores against literal transcriptions of their definitions, scikit-image and hand work."""

import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import sparse
from skimage.metrics import adapted_rand_error as skimage_arand

from zoo_models.contingency import contingency, overlaps
from zoo_models.errors import ImageError
from zoo_models.metrics import adapted_rand_error, aggregate, count_matches, score

IntArray = NDArray[np.int64]
Pair = tuple[IntArray, IntArray]
Masks = list[set[int]]

IDS = st.sampled_from([0, 1, 2, 3, 7, 4_000_000_000])


@st.composite
def label_pairs(draw: st.DrawFn) -> Pair:
    """Two small label images of one shape, 1D to 3D, with gaps in their ids."""
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple))
    images = arrays(np.int64, shape, elements=IDS)
    return draw(images), draw(images)


def masks(labels: IntArray) -> Masks:
    """Set of flat pixel positions of every instance."""
    pixels: dict[int, set[int]] = {}
    for position, label in enumerate(labels.ravel().tolist()):
        if label != 0:
            pixels.setdefault(label, set()).add(position)
    return list(pixels.values())


def true_positives(predicted: Masks, truth: Masks, twentieths: int) -> int:
    """Matches at IoU > twentieths / 20, in whole numbers, pair by pair."""
    found = 0
    for a in predicted:
        for b in truth:
            found += 20 * len(a & b) > twentieths * len(a | b)
    return found


def average_precision(predicted: Masks, truth: Masks, twentieths: int) -> float:
    tp = true_positives(predicted, truth, twentieths)
    fp, fn = len(predicted) - tp, len(truth) - tp
    return 1.0 if tp + fp + fn == 0 else tp / (tp + fp + fn)


def best_dice(ones: Masks, others: Masks) -> float:
    best = [max((2 * len(a & b) / (len(a) + len(b)) for b in others), default=0.0) for a in ones]
    return sum(best) / len(best)


def partners(ones: Masks, others: Masks) -> list[int]:
    """Per instance of `ones`, the number of `others` at IoU > 1/10."""
    return [sum(10 * len(a & b) > len(a | b) for b in others) for a in ones]


@given(label_pairs())
@settings(max_examples=300, deadline=None)
def test_every_score_equals_its_definition_written_as_loops(pair: Pair) -> None:
    predicted, truth = masks(pair[0]), masks(pair[1])
    scores = score(*pair)
    precisions = [average_precision(predicted, truth, k) for k in range(10, 20)]
    assert scores.ap50 == pytest.approx(precisions[0])
    assert scores.mean_ap == pytest.approx(sum(precisions) / 10)
    assert scores.dic == abs(len(predicted) - len(truth))
    assert scores.false_splits == sum(n > 1 for n in partners(truth, predicted))
    assert scores.false_merges == sum(n > 1 for n in partners(predicted, truth))
    assert scores.matched50 == true_positives(predicted, truth, 10)
    if predicted and truth:
        expected = min(best_dice(predicted, truth), best_dice(truth, predicted))
        assert scores.sbd == pytest.approx(expected)
        assert scores.precision50 == pytest.approx(scores.matched50 / len(predicted))
        assert scores.recall50 == pytest.approx(scores.matched50 / len(truth))


@given(label_pairs())
@settings(max_examples=200, deadline=None)
def test_arand_error_equals_its_formula_written_as_loops(pair: Pair) -> None:
    kept = [(p, t) for p, t in zip(pair[0].flat, pair[1].flat, strict=True) if t != 0]
    if not kept:
        return
    p_ij = sum(sum(other == one for other in kept) for one in kept)
    s_i = sum(sum(other[0] == one[0] for other in kept) for one in kept)
    t_j = sum(sum(other[1] == one[1] for other in kept) for one in kept)
    assert score(*pair).arand_error == pytest.approx(1 - 2 * p_ij / (s_i + t_j))


@given(label_pairs())
@settings(max_examples=100, deadline=None)
def test_arand_error_is_scikit_images_once_pixels_pair_with_themselves(pair: Pair) -> None:
    """scikit-image leaves out n self-pairs; in a table times 10^8 they no longer count."""
    table = contingency(*pair)
    kept = table.truth_ids[table.truth_index] != 0
    if not kept.any():
        return
    entries = (table.truth_index[kept], table.predicted_index[kept])
    enlarged = sparse.csr_array((table.overlap[kept] * 1e8, entries))
    expected, _, _ = skimage_arand(table=enlarged)
    assert score(*pair).arand_error == pytest.approx(expected, abs=1e-6)


def test_arand_error_approaches_scikit_images_on_large_images() -> None:
    rng = np.random.default_rng(0)
    truth = np.kron(rng.integers(0, 30, (12, 12)), np.ones((20, 20), int))
    predicted = np.where(rng.random(truth.shape) < 0.1, 0, truth // 2 + truth % 3)
    expected, _, _ = skimage_arand(truth, predicted)
    assert score(predicted, truth).arand_error == pytest.approx(expected, abs=2e-3)


def test_scores_of_a_row_of_pixels_worked_by_hand() -> None:
    truth = np.array([1, 1, 1, 1, 2, 2, 2, 2, 0, 0])
    predicted = np.array([5, 5, 5, 0, 6, 6, 7, 7, 8, 0])
    # IoU: (5, 1) 3/4, (6, 2) 1/2, (7, 2) 1/2, 8 has no partner.
    # IoU > 0.5: one match; 3 predictions and 1 true instance are left.
    # IoU > t holds at 0.50, 0.55, 0.60, 0.65, 0.70 but not at 0.75: 5 of 10.
    # Dice: (5, 1) 6/7, (6, 2) 2/3, (7, 2) 2/3; from truth 16/21, from predicted 46/84.
    # ARand: p = 3, 1 (label 0), 2, 2: 18; s the same: 18; t = 4, 4: 32.
    scores = score(predicted, truth)
    assert scores.ap50 == pytest.approx(1 / 5)
    assert scores.mean_ap == pytest.approx(1 / 5 * 5 / 10)
    assert scores.sbd == pytest.approx(46 / 84)
    assert scores.dic == 2
    assert scores.arand_error == pytest.approx(1 - 36 / 50)
    assert (scores.false_splits, scores.false_merges) == (1, 0)
    assert (scores.precision50, scores.recall50) == (1 / 4, 1 / 2)
    assert (scores.true_instances, scores.predicted_instances) == (2, 4)


def test_an_iou_of_exactly_the_threshold_is_no_match() -> None:
    half = contingency(np.array([1, 1, 0, 0]), np.array([1, 1, 1, 1]))
    assert overlaps(half).iou.tolist() == [0.5]
    assert count_matches(overlaps(half), 0.5) == 0
    assert count_matches(overlaps(contingency(np.ones(4, int), np.ones(4, int))), 0.95) == 1


@pytest.mark.parametrize("twentieths", range(10, 20))
def test_thresholds_are_strict_in_spite_of_rounding(twentieths: int) -> None:
    truth = np.ones(20, int)
    predicted = (np.arange(20) < twentieths).astype(int)
    below = sum(k < twentieths for k in range(10, 20))
    assert score(predicted, truth).mean_ap == pytest.approx(below / 10)


def test_matches_below_one_half_are_refused_because_they_are_not_unique() -> None:
    pairs = overlaps(contingency(np.ones(4, int), np.ones(4, int)))
    with pytest.raises(ValueError, match="not unique"):
        count_matches(pairs, 0.4)


def test_two_instances_merged_into_one_are_one_false_merge() -> None:
    truth = np.array([1, 1, 2, 2])
    assert score(np.array([3, 3, 3, 3]), truth).false_merges == 1
    assert score(truth, np.array([3, 3, 3, 3])).false_splits == 1


def test_two_empty_images_agree() -> None:
    empty = np.zeros((4, 5), np.uint16)
    scores = score(empty, empty)
    assert (scores.ap50, scores.mean_ap, scores.sbd, scores.arand_error) == (1, 1, 1, 0)
    assert (scores.dic, scores.precision50, scores.recall50) == (0, 1, 1)


def test_a_prediction_in_an_empty_image_scores_worst() -> None:
    scores = score(np.ones((4, 5), int), np.zeros((4, 5), int))
    assert (scores.ap50, scores.sbd, scores.arand_error, scores.dic) == (0, 0, 1, 1)
    assert (scores.precision50, scores.recall50) == (0, 0)


def test_a_missing_prediction_scores_zero() -> None:
    scores = score(np.zeros((4, 5), int), np.ones((4, 5), int))
    assert (scores.ap50, scores.mean_ap, scores.sbd) == (0, 0, 0)
    assert (scores.precision50, scores.recall50) == (0, 0)


def test_images_without_pixels_are_two_empty_images() -> None:
    assert score(np.zeros((0, 5), int), np.zeros((0, 5), int)).ap50 == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.uint64])
def test_scores_depend_on_neither_dtype_nor_the_ids_chosen(dtype: type[np.integer]) -> None:
    rng = np.random.default_rng(1)
    truth, predicted = rng.integers(0, 5, (2, 6, 7, 8))
    renamed = np.array([0, 101, 7, 50, 3]).astype(dtype)
    assert score(renamed[predicted], renamed[truth]) == score(predicted, truth)


def test_ids_up_to_the_largest_of_32_bits_are_told_apart() -> None:
    truth = np.array([0, 2**32 - 1, 2**32 - 2, 2**31], dtype=np.uint32)
    assert score(truth, truth).ap50 == 1
    assert score(truth, truth).true_instances == 3


def test_contingency_counts_the_pixels_of_every_pair() -> None:
    table = contingency(np.array([[7, 7, 7], [0, 0, 9]]), np.array([[1, 1, 2], [2, 0, 0]]))
    entries = {
        (int(table.predicted_ids[p]), int(table.truth_ids[t])): int(n)
        for p, t, n in zip(table.predicted_index, table.truth_index, table.overlap, strict=True)
    }
    assert entries == {(7, 1): 2, (7, 2): 1, (0, 2): 1, (0, 0): 1, (9, 0): 1}
    assert table.predicted_sizes.tolist() == [2, 3, 1]
    assert table.truth_sizes.tolist() == [2, 2, 2]


def test_arand_error_does_not_overflow_on_volumes_of_a_terapixel() -> None:
    huge = np.array([1])
    table = contingency(huge, huge)
    table.overlap[:] = 2**40
    assert adapted_rand_error(table) == 0.0


def test_other_shapes_are_refused_with_both_shapes_named() -> None:
    with pytest.raises(ImageError, match=r"\(4, 5\).*\(5, 4\)"):
        score(np.zeros((4, 5), int), np.zeros((5, 4), int))


def test_labels_that_are_not_integers_are_refused() -> None:
    with pytest.raises(ImageError, match="predicted labels are float32"):
        score(np.zeros((4, 5), np.float32), np.zeros((4, 5), int))


def test_negative_labels_are_refused() -> None:
    with pytest.raises(ImageError, match="true labels go down to -1"):
        score(np.zeros(3, int), np.array([0, -1, 2]))


def test_a_data_set_has_the_mean_over_images_and_the_pooled_precision() -> None:
    one_of_one = score(np.array([1, 1]), np.array([1, 1]))
    one_of_four = score(np.array([1, 0, 0, 0]), np.array([1, 2, 3, 4]))
    total = aggregate([one_of_one, one_of_four])
    assert total.images == 2
    assert total.ap50 == pytest.approx((1 + 1 / 4) / 2)
    assert total.pooled_ap50 == pytest.approx(2 / 5)
    assert total.dic == pytest.approx(1.5)
    assert (total.true_instances, total.predicted_instances, total.matched50) == (5, 2, 2)


def test_splits_and_merges_of_a_data_set_are_totals() -> None:
    merge = score(np.array([3, 3, 3, 3]), np.array([1, 1, 2, 2]))
    assert aggregate([merge, merge, merge]).false_merges == 3


def test_no_image_is_no_data_set() -> None:
    with pytest.raises(ImageError, match="no scored image"):
        aggregate([])


def test_scores_become_plain_numbers_for_json() -> None:
    values = score(np.array([1, 1]), np.array([1, 1])).as_dict()
    assert values["ap50"] == 1.0
    assert all(type(value) in (int, float) for value in values.values())
    assert all(
        type(v) in (int, float)
        for v in aggregate([score(*[np.ones(2, int)] * 2)]).as_dict().values()
    )


def test_a_large_image_with_many_instances_is_scored_in_seconds() -> None:
    side = 2048
    truth = (np.arange(side * side).reshape(side, side) // 97).astype(np.uint32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start = time.perf_counter()
        scores = score(np.roll(truth, 7), truth)
    assert time.perf_counter() - start < 10
    assert scores.true_instances > 40_000
