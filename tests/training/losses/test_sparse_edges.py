"""Gradients of the terms of sparse supervision, their edges, and their sum."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.losses.test_sparse_losses import SETTINGS, flat_of, patch, sparse
from training.losses.combined import EmbeddingLoss
from training.losses.consistency import consistency
from training.losses.instance_selection import object_bce, object_dice
from training.losses.instances import Instances
from training.losses.unlabeled_push import unlabeled_push


def in_double(pixels: Tensor, ids: Tensor) -> Instances:
    known = ids > 0
    _, index, counts = torch.unique(ids[known], return_inverse=True, return_counts=True)
    sums = pixels.new_zeros(len(counts), pixels.shape[1]).index_add(0, index, pixels[known])
    means = sums / counts[:, None]
    places = (~known).nonzero()[:, 0]
    return Instances(
        pixels[known],
        index,
        counts.double(),
        means,
        unlabeled=pixels[~known],
        unlabeled_places=places,
    )


@pytest.mark.parametrize(
    "term",
    [
        lambda x: unlabeled_push(x, 2.0),
        lambda x: object_dice(x, anchor="mean", **SETTINGS),
        lambda x: object_bce(x, anchor="mean", **SETTINGS),
    ],
)
def test_gradients_of_terms_on_instances_are_right(term: Callable[[Instances], Tensor]) -> None:
    embeddings, labels = patch((2, 4, 4), 3)
    ids = torch.from_numpy(labels.ravel())
    pixels = torch.from_numpy(flat_of(embeddings)).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: term(in_double(p, ids)), (pixels,))


def test_gradients_of_the_consistency_are_right_for_both_networks() -> None:
    student, labels = patch((2, 4, 4), 3)
    region = torch.from_numpy(labels.ravel() == 0)
    f = torch.from_numpy(flat_of(student)).requires_grad_()
    g = (f.detach() * 1.3).requires_grad_()

    def loss(first: Tensor, second: Tensor) -> Tensor:
        torch.manual_seed(0)
        return consistency(first, second, region, **SETTINGS)

    assert torch.autograd.gradcheck(loss, (f, g))


EDGES = {
    "everything unlabeled": torch.zeros(6, 6),
    "nothing unlabeled": torch.arange(36).reshape(6, 6) // 9 + 1,
    "one instance and nothing else": torch.ones(6, 6),
    "an instance of one pixel": torch.nn.functional.pad(torch.ones(1, 1), (2, 3, 3, 2)),
    "only instances of one pixel": torch.arange(1, 37).reshape(6, 6),
}


@pytest.mark.parametrize("name", EDGES)
@pytest.mark.parametrize("object_loss", ["dice", "bce"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
@pytest.mark.parametrize("neighbourhood", [None, 0])
def test_edges_give_finite_losses_and_gradients(
    name: str, object_loss: str, scale: float, neighbourhood: int | None
) -> None:
    labels = EDGES[name].long()[None]
    torch.manual_seed(0)
    embeddings = (scale * torch.randn(1, 3, 6, 6)).requires_grad_()
    loss = EmbeddingLoss(unlabeled=0, object_loss=object_loss, neighbourhood=neighbourhood)
    terms = loss(embeddings, labels, embeddings.detach() + 0.1 * torch.randn(1, 3, 6, 6))
    terms["loss"].backward()
    assert embeddings.grad is not None
    assert all(torch.isfinite(value) for value in terms.values())
    assert torch.isfinite(embeddings.grad).all()
    if name == "everything unlabeled":
        assert terms["loss"].item() == pytest.approx(terms["consistency"].item())
    if (labels > 0).all():
        assert terms["unlabeled_push"].item() == terms["consistency"].item() == 0


def test_five_hundred_instances_are_as_right_as_five() -> None:
    labels = np.zeros((50, 60), int)
    labels.ravel()[::6] = np.arange(1, 501)
    embeddings = np.random.default_rng(0).normal(scale=2, size=(3, 50, 60)).astype(np.float32)
    found = unlabeled_push(sparse(embeddings, labels), 2.0).item()
    flat, ids = flat_of(embeddings), labels.ravel()
    distances = np.linalg.norm(flat[ids > 0][:, None] - flat[ids == 0][None], axis=2)
    assert found == pytest.approx((np.maximum(0, 2 - distances) ** 2).mean(), rel=1e-5)


def test_the_weighted_sum_is_equation_8() -> None:
    embeddings, labels = patch((3, 7, 9), 4)
    e, y = torch.from_numpy(embeddings)[None], torch.from_numpy(labels)[None]
    loss = EmbeddingLoss(
        unlabeled=0, anchor="mean", unlabeled_push_weight=3.0, consistency_weight=5.0
    )
    terms = loss(e, y, e * 1.2)
    expected = terms["pull"] + terms["push"] + terms["object"] + 0.001 * terms["regulariser"]
    expected = expected + 3 * terms["unlabeled_push"] + 5 * terms["consistency"]
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert set(terms) == {
        *("loss", "pull", "push", "object", "regulariser", "unlabeled_push", "consistency")
    }


def test_every_sample_of_a_batch_counts_by_its_own_instances() -> None:
    patches = [patch((3, 7, 9), n, seed=n) for n in (0, 2, 5)]
    e, y = (torch.stack([torch.from_numpy(p[i]) for p in patches]) for i in (0, 1))
    loss = EmbeddingLoss(unlabeled=0, anchor="mean")
    together = loss(e, y)
    alone = [loss(e[i : i + 1], y[i : i + 1])["loss"].item() for i in range(3)]
    assert alone[0] == 0
    assert together["loss"].item() == pytest.approx(np.mean(alone), rel=1e-6)


def test_full_supervision_with_a_teacher_draws_anchors_from_everywhere() -> None:
    e = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    y = torch.ones(1, 6, 6, dtype=torch.long)
    terms = EmbeddingLoss()(e, y, e * 1.5)
    assert terms["consistency"] > 0
    assert "unlabeled_push" not in terms


def test_bfloat16_embeddings_are_compared_in_float32() -> None:
    embeddings, labels = patch((3, 7, 9), 4)
    half, y = torch.from_numpy(embeddings)[None].bfloat16(), torch.from_numpy(labels)[None]
    loss, results = EmbeddingLoss(unlabeled=0), []
    for given in (half, half.float()):
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=given.dtype == torch.bfloat16):
            results.append(loss(given, y, given * 1.25))
    assert all(value.dtype == torch.float32 for value in results[0].values())
    for name, value in results[1].items():
        assert results[0][name].item() == pytest.approx(value.item(), rel=1e-2), name
    assert results[0]["object"].item() == results[1]["object"].item()
