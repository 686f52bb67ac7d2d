"""Every loss term against a slow, literal transcription of its equation, and its gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from training.losses.combined import EmbeddingLoss
from training.losses.instance_selection import object_dice, soft_masks
from training.losses.instances import Instances
from training.losses.pull import pull
from training.losses.push import push
from training.losses.regulariser import regulariser

SHAPES = [(3, 7, 9), (2, 4, 5, 6)]


def patch(shape: tuple[int, ...], instances: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings D(z)yx and labels (z)yx with every id of 0..instances-1 present."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, instances, shape[1:])
    labels.ravel()[:instances] = np.arange(instances)
    return rng.normal(scale=2.0, size=shape).astype(np.float32), labels


def pixels_of(embeddings: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """(N_k, D) embeddings of each instance k."""
    flat = embeddings.reshape(len(embeddings), -1).T.astype(np.float64)
    return [flat[labels.ravel() == k] for k in np.unique(labels)]


def literal_pull(groups: list[np.ndarray], delta_v: float) -> float:
    total = 0.0
    for pixels in groups:
        mean = pixels.mean(axis=0)
        hinges = [max(0.0, float(np.linalg.norm(mean - e)) - delta_v) for e in pixels]
        total += sum(h**2 for h in hinges) / len(pixels)
    return total / len(groups)


def literal_push(groups: list[np.ndarray], delta_d: float) -> float:
    means = [pixels.mean(axis=0) for pixels in groups]
    total, pairs = 0.0, 0
    for k, first in enumerate(means):
        for other, second in enumerate(means):
            if k != other:
                total += max(0.0, 2 * delta_d - float(np.linalg.norm(first - second))) ** 2
                pairs += 1
    return total / pairs if pairs else 0.0


def literal_dice(
    embeddings: np.ndarray, labels: np.ndarray, anchors: list[np.ndarray], delta_v: float, t: float
) -> float:
    flat = embeddings.reshape(len(embeddings), -1).T.astype(np.float64)
    sigma_squared = -(delta_v**2) / (2 * math.log(t))
    losses = []
    for k, anchor in zip(np.unique(labels), anchors, strict=True):
        soft = np.exp(-((flat - anchor) ** 2).sum(axis=1) / (2 * sigma_squared))
        true = (labels.ravel() == k).astype(float)
        losses.append(1 - 2 * (soft * true).sum() / ((soft**2).sum() + (true**2).sum()))
    return float(np.mean(losses))


def as_instances(embeddings: np.ndarray, labels: np.ndarray) -> Instances:
    return Instances.from_patch(torch.from_numpy(embeddings), torch.from_numpy(labels))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("instances", [1, 2, 6])
def test_terms_are_what_their_equations_say(shape: tuple[int, ...], instances: int) -> None:
    embeddings, labels = patch(shape, instances)
    given, groups = as_instances(embeddings, labels), pixels_of(embeddings, labels)
    assert pull(given, 0.5).item() == pytest.approx(literal_pull(groups, 0.5), rel=1e-5)
    assert push(given, 2.0).item() == pytest.approx(literal_push(groups, 2.0), rel=1e-5)
    norms = [np.linalg.norm(g.mean(axis=0)) for g in groups]
    assert regulariser(given).item() == pytest.approx(np.mean(norms), rel=1e-5)
    means = [g.mean(axis=0) for g in groups]
    dice = object_dice(given, delta_v=0.5, t=0.9, anchor="mean")
    assert dice.item() == pytest.approx(literal_dice(embeddings, labels, means, 0.5, 0.9), rel=1e-4)


def test_random_anchors_are_pixels_of_their_own_instance_and_all_of_them_in_time() -> None:
    embeddings, labels = patch((2, 6, 6), 4)
    given = as_instances(embeddings, labels)
    torch.manual_seed(0)
    seen: set[int] = set()
    for _ in range(200):
        drawn = given.random_pixels()
        assert given.index[drawn].tolist() == [0, 1, 2, 3]
        seen |= set(drawn.tolist())
    assert seen == set(range(36))


def test_the_object_term_uses_the_anchors_it_drew() -> None:
    embeddings, labels = patch((3, 5, 5), 3)
    given = as_instances(embeddings, labels)
    torch.manual_seed(7)
    drawn = given.random_pixels()
    anchors = list(embeddings.reshape(3, -1).T[drawn.numpy()])
    torch.manual_seed(7)
    loss = object_dice(given, delta_v=0.5, t=0.9, anchor="random")
    assert loss.item() == pytest.approx(
        literal_dice(embeddings, labels, anchors, 0.5, 0.9), rel=1e-4
    )


def test_a_soft_mask_is_t_at_distance_delta_v() -> None:
    anchor, pixel = torch.zeros(1, 4), torch.tensor([[0.3, 0.4, 0.0, 0.0]])
    assert soft_masks(pixel, anchor, delta_v=0.5, t=0.9).item() == pytest.approx(0.9)


def test_perfect_embeddings_cost_nothing_but_the_regulariser() -> None:
    labels = torch.tensor([[0, 0, 1], [2, 2, 1]])
    means = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
    terms = EmbeddingLoss()(means[labels].permute(2, 0, 1)[None], labels[None])
    assert terms["pull"].item() == terms["push"].item() == 0
    assert terms["object"].item() == pytest.approx(0, abs=1e-6)
    assert terms["loss"].item() == pytest.approx(0.001 * 100 / 3)


def test_gradients_are_right() -> None:
    embeddings, labels = patch((2, 4, 4), 3)
    ids = torch.from_numpy(labels)
    flat = torch.from_numpy(embeddings).double().flatten(1).T.contiguous().requires_grad_()

    def loss(pixels: torch.Tensor) -> torch.Tensor:
        _, index, counts = torch.unique(ids.flatten(), return_inverse=True, return_counts=True)
        sums = pixels.new_zeros(3, 2).index_add(0, index, pixels)
        given = Instances(pixels, index, counts.double(), sums / counts[:, None])
        terms = pull(given, 0.5) + push(given, 2.0) + regulariser(given)
        return terms + object_dice(given, delta_v=0.5, t=0.9, anchor="mean")

    assert torch.autograd.gradcheck(loss, (flat,))


@pytest.mark.parametrize(
    "labels", [torch.zeros(4, 4), torch.eye(4), torch.arange(16).reshape(4, 4)]
)
def test_edges_give_finite_losses_and_gradients(labels: torch.Tensor) -> None:
    """One instance only; instances of several pieces; every instance a single pixel."""
    embeddings = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = EmbeddingLoss()(embeddings, labels[None].long())["loss"]
    loss.backward()
    assert embeddings.grad is not None
    assert torch.isfinite(loss)
    assert torch.isfinite(embeddings.grad).all()


def test_identical_embeddings_still_have_a_finite_gradient() -> None:
    embeddings = torch.zeros(1, 3, 4, 4, requires_grad=True)
    loss = EmbeddingLoss()(embeddings, torch.eye(4).long()[None])["loss"]
    loss.backward()
    assert embeddings.grad is not None
    assert torch.isfinite(embeddings.grad).all()


def test_a_batch_costs_the_mean_of_its_samples() -> None:
    loss = EmbeddingLoss(anchor="mean")
    pairs = [patch((3, 6, 6), n, seed=n) for n in (2, 5)]
    embeddings, labels = (torch.from_numpy(np.stack(x)) for x in zip(*pairs, strict=True))
    alone = [loss(e[None], y[None])["loss"].item() for e, y in zip(embeddings, labels, strict=True)]
    assert loss(embeddings, labels)["loss"].item() == pytest.approx(np.mean(alone), rel=1e-5)


def test_ids_may_have_gaps_and_another_order() -> None:
    loss = EmbeddingLoss(anchor="mean")
    embeddings, labels = patch((3, 6, 6), 4)
    renamed = np.array([70_000, 3, 0, 12])[labels]
    first, second = (
        loss(torch.from_numpy(embeddings)[None], torch.from_numpy(ids)[None])["loss"].item()
        for ids in (labels, renamed)
    )
    assert first == pytest.approx(second, rel=1e-5)


def test_the_discriminative_loss_leaves_the_object_term_out() -> None:
    embeddings, labels = patch((3, 6, 6), 4)
    terms = EmbeddingLoss(object_weight=0)(
        torch.from_numpy(embeddings)[None], torch.from_numpy(labels)[None]
    )
    assert "object" not in terms
    expected = terms["pull"] + terms["push"] + 0.001 * terms["regulariser"]
    assert terms["loss"].item() == pytest.approx(expected.item())


def test_bfloat16_embeddings_are_compared_in_float32() -> None:
    embeddings, labels = patch((3, 6, 6), 4)
    half = torch.from_numpy(embeddings)[None].bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        terms = EmbeddingLoss(anchor="mean")(half, torch.from_numpy(labels)[None])
    exact = EmbeddingLoss(anchor="mean")(half.float(), torch.from_numpy(labels)[None])
    assert terms["loss"].dtype == torch.float32
    assert terms["loss"].item() == pytest.approx(exact["loss"].item(), rel=1e-6)


def test_only_instances_with_close_boxes_are_near() -> None:
    labels = torch.zeros(20, 30, dtype=torch.long)
    labels[1:4, 1:4], labels[1:4, 8:10], labels[15:18, 1:4] = 1, 2, 3
    near = Instances.from_patch(torch.zeros(2, 20, 30), labels, neighbourhood=5).near()
    assert near[0].all()  # the background's box is the patch
    assert near[1].tolist() == [True, True, True, False]  # 8 - 3 = 5 along x; 15 - 3 along y
    assert near[3].tolist() == [True, False, False, True]
    assert torch.equal(near, near.T)


def test_distant_instances_may_share_an_embedding_when_only_neighbours_are_compared() -> None:
    labels = torch.zeros(1, 20, 20, dtype=torch.long)
    labels[0, 1:4, 1:4], labels[0, 1:4, 4:7], labels[0, 15:18, 15:18] = 1, 2, 3
    means = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 0.0]])
    embeddings = means[labels].permute(0, 3, 1, 2)
    near = EmbeddingLoss(neighbourhood=4)(embeddings, labels)
    everywhere = EmbeddingLoss()(embeddings, labels)
    assert near["push"].item() == 0
    assert near["object"].item() == pytest.approx(0, abs=1e-6)
    assert everywhere["push"].item() == pytest.approx(16 / 6)  # one pair of six at distance 0
    assert everywhere["object"].item() > 0.1
