"""The terms of sparse supervision against literal transcriptions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from training.losses.consistency import consistency, draw_anchors
from training.losses.instance_selection import object_bce, object_dice
from training.losses.instances import Instances
from training.losses.pull import pull
from training.losses.push import push
from training.losses.regulariser import regulariser
from training.losses.unlabeled_push import unlabeled_push

SHAPES = [(3, 7, 9), (2, 4, 5, 6)]
SETTINGS = {"delta_v": 0.5, "t": 0.9}


def patch(shape: tuple[int, ...], instances: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings D(z)yx and labels (z)yx: 1..instances, and 0 for about half of the pixels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, instances + 1, shape[1:]) if instances else np.zeros(shape[1:], int)
    labels[rng.random(shape[1:]) < 0.5] = 0
    labels.ravel()[:instances] = np.arange(1, instances + 1)
    return rng.normal(scale=1.0, size=shape).astype(np.float32), labels


def sparse(
    embeddings: np.ndarray,
    labels: np.ndarray,
    *,
    unlabeled: int = 0,
    neighbourhood: int | None = None,
) -> Instances:
    e, y = torch.from_numpy(embeddings), torch.from_numpy(labels)
    return Instances.from_patch(e, y, unlabeled=unlabeled, neighbourhood=neighbourhood)


def flat_of(embeddings: np.ndarray) -> np.ndarray:
    return embeddings.reshape(len(embeddings), -1).T.astype(np.float64)


def literal_soft_mask(flat: np.ndarray, anchor: np.ndarray) -> np.ndarray:
    sigma_squared = -(0.5**2) / (2 * math.log(0.9))
    return np.array([math.exp(-((e - anchor) ** 2).sum() / (2 * sigma_squared)) for e in flat])


def literal_unlabeled_push(embeddings: np.ndarray, labels: np.ndarray, delta_d: float) -> float:
    flat, ids = flat_of(embeddings), labels.ravel()
    total, known = 0.0, [k for k in np.unique(ids) if k != 0]
    for k in known:
        mean = flat[ids == k].mean(axis=0)
        hinges = [max(0.0, delta_d - float(np.linalg.norm(mean - e))) for e in flat[ids == 0]]
        total += sum(h**2 for h in hinges) / len(hinges)
    return total / len(known)


# ---- instances ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_unlabeled_pixels_are_no_instance_and_no_part_of_the_other_terms(
    shape: tuple[int, ...],
) -> None:
    """Pull, push and regulariser are those of a patch that never had the unlabeled pixels."""
    embeddings, labels = patch(shape, 5)
    given = sparse(embeddings, labels)
    known = torch.from_numpy(labels) > 0
    alone = Instances.from_patch(
        torch.from_numpy(embeddings)[:, known], torch.from_numpy(labels)[known]
    )
    for term in (lambda x: pull(x, 0.5), lambda x: push(x, 2.0), regulariser):
        assert term(given).item() == pytest.approx(term(alone).item(), rel=1e-6)
    assert len(given.counts) == 5
    assert given.unlabeled is not None
    assert len(given.unlabeled) == (labels == 0).sum()


def test_any_label_can_be_the_one_that_is_ignored() -> None:
    embeddings, labels = patch(SHAPES[0], 4)
    other = np.where(labels == 0, -1, labels - 1)  # now 0 is an instance
    first, second = sparse(embeddings, labels), sparse(embeddings, other, unlabeled=-1)
    assert torch.equal(first.means, second.means)
    assert torch.equal(first.index, second.index)
    assert first.unlabeled is not None
    assert second.unlabeled is not None
    assert torch.equal(first.unlabeled, second.unlabeled)


def test_unlabeled_pixels_are_near_to_the_instances_whose_box_they_are_close_to() -> None:
    labels = np.zeros((12, 20), int)
    labels[2:5, 3:6], labels[8:10, 15:18] = 1, 2
    given = sparse(np.zeros((2, 12, 20), np.float32), labels, neighbourhood=2)
    assert given.near().tolist() == [[True, False], [False, True]]
    expected = np.zeros((2, 12, 20), bool)
    expected[0, 0:7, 1:8] = True  # the box 2..4, 3..5 and 2 pixels around it
    expected[1, 6:12, 13:20] = True
    assert given.neighbourhood is not None
    assert given.unlabeled_places is not None
    found = given.neighbourhood.pixels(given.unlabeled_places, torch.float32)
    np.testing.assert_array_equal(found.numpy(), expected[:, labels == 0])


# ---- unlabeled push ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("instances", [1, 2, 6])
def test_unlabeled_push_is_what_equation_6_says(shape: tuple[int, ...], instances: int) -> None:
    embeddings, labels = patch(shape, instances)
    expected = literal_unlabeled_push(embeddings, labels, 2.0)
    assert expected > 0.1
    assert unlabeled_push(sparse(embeddings, labels), 2.0).item() == pytest.approx(
        expected, rel=1e-5
    )


def test_only_unlabeled_pixels_closer_than_delta_d_are_pushed() -> None:
    labels = np.array([[1, 0, 0]])
    embeddings = np.array([[[0.0, 1.5, 2.1]]], np.float32)  # one dimension
    assert unlabeled_push(sparse(embeddings, labels), 2.0).item() == pytest.approx(0.5**2 / 2)


def test_an_unlabeled_pixel_far_from_an_instance_is_not_pushed_with_a_neighbourhood() -> None:
    labels = np.array([[1, 0, 0, 0, 0, 0]])
    embeddings = np.array([[[0.0, 1.0, 1.5, 0.0, 0.0, 0.0]]], np.float32)
    near = unlabeled_push(sparse(embeddings, labels, neighbourhood=2), 2.0)
    assert near.item() == pytest.approx((1.0**2 + 0.5**2) / 2)


# ---- object terms ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("instances", [1, 5])
def test_the_object_terms_compare_masks_over_labeled_and_unlabeled_pixels(
    shape: tuple[int, ...], instances: int
) -> None:
    embeddings, labels = patch(shape, instances)
    flat, dices, entropies = flat_of(embeddings), [], []
    for k in range(1, instances + 1):
        true = (labels.ravel() == k).astype(float)
        soft = literal_soft_mask(flat, flat[labels.ravel() == k].mean(axis=0))
        dices.append(1 - 2 * (soft * true).sum() / ((soft**2).sum() + (true**2).sum()))
        pairs = zip(soft, true, strict=True)
        entropies.append(np.mean([-math.log(s) if y else -math.log(1 - s) for s, y in pairs]))
    given = sparse(embeddings, labels)
    dice = object_dice(given, anchor="mean", **SETTINGS)
    assert dice.item() == pytest.approx(np.mean(dices), rel=1e-4)
    entropy = object_bce(given, anchor="mean", **SETTINGS)
    assert entropy.item() == pytest.approx(np.mean(entropies), rel=1e-3)


def test_bce_under_full_supervision_counts_near_instances_only() -> None:
    labels = torch.zeros(1, 30, dtype=torch.long)
    labels[0, 0:3], labels[0, 3:6], labels[0, 20:23] = 1, 2, 3
    embeddings = torch.randn(2, 1, 30, generator=torch.Generator().manual_seed(0))
    near = Instances.from_patch(embeddings, labels, neighbourhood=4)
    flat, ids, costs = flat_of(embeddings.numpy()), labels.ravel().numpy(), []
    for k in range(4):
        soft = literal_soft_mask(flat, flat[ids == k].mean(axis=0))
        others = [m for m in range(4) if m != k and near.near()[k, m]]
        counted = [-math.log(s) for s in soft[ids == k]]
        counted += [-math.log(1 - s) for s in soft[np.isin(ids, others)]]
        costs.append(np.mean(counted))
    assert len(counted) == 24  # instance 3 is near the background only
    found = object_bce(near, anchor="mean", **SETTINGS)
    assert found.item() == pytest.approx(np.mean(costs), rel=1e-4)


# ---- consistency -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_consistency_is_what_equation_7_says_for_the_anchors_it_drew(
    shape: tuple[int, ...],
) -> None:
    student, labels = patch(shape, 3)
    teacher = student + np.random.default_rng(1).normal(scale=0.3, size=shape)
    f, g, region = flat_of(student), flat_of(teacher), labels.ravel() == 0
    torch.manual_seed(5)
    anchors = draw_anchors(torch.from_numpy(f), torch.from_numpy(region), delta_v=0.5)
    losses = []
    for a in anchors.tolist():
        first, second = literal_soft_mask(f, f[a]), literal_soft_mask(g, g[a])
        losses.append(1 - 2 * (first * second).sum() / ((first**2).sum() + (second**2).sum()))
    torch.manual_seed(5)
    tensors = (torch.from_numpy(x) for x in (f, g, region))
    found = consistency(*tensors, **SETTINGS)  # type: ignore[arg-type]
    assert np.mean(losses) > 0.01
    assert found.item() == pytest.approx(np.mean(losses), rel=1e-6)


def test_anchors_cover_the_region_and_none_lies_in_reach_of_another() -> None:
    embeddings = torch.rand(400, 2, generator=torch.Generator().manual_seed(0)) * 1.2
    region = torch.arange(400) % 3 == 0
    for seed in range(10):
        torch.manual_seed(seed)
        anchors = draw_anchors(embeddings, region, delta_v=0.5)
        assert region[anchors].all()
        distances = torch.cdist(embeddings[region], embeddings[anchors])
        assert (distances.amin(dim=1) <= 0.5).all()
        between = torch.cdist(embeddings[anchors], embeddings[anchors])
        assert (between + 9 * torch.eye(len(anchors)) > 0.5).all()


def test_anchors_depend_on_the_seed_and_are_limited_in_number() -> None:
    embeddings, region = torch.arange(100.0)[:, None], torch.ones(100, dtype=torch.bool)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(draw_anchors(embeddings, region, delta_v=0.5, limit=7).tolist())
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 7


def test_every_unlabeled_pixel_becomes_a_first_anchor_as_often_as_any_other() -> None:
    region = torch.tensor([True, False, True, True, True])
    torch.manual_seed(0)
    first = [int(draw_anchors(torch.zeros(5, 1), region, delta_v=1)[0]) for _ in range(2000)]
    counts = np.bincount(first, minlength=5)
    assert counts[1] == 0
    assert (abs(counts[[0, 2, 3, 4]] - 500) < 80).all()  # 4 standard deviations


def test_equal_embeddings_are_consistent_also_when_one_network_moves_all_of_them() -> None:
    """Masks are drawn around the same pixel in each network's own space: a shift costs nothing."""
    student = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double()
    everywhere = torch.ones(50, dtype=torch.bool)
    assert consistency(student, student + 7, everywhere, **SETTINGS).item() == pytest.approx(0)
    assert consistency(student, student * 2, everywhere, **SETTINGS).item() > 0.01
