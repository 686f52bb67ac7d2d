"""Pixels of the ignored label, and the edges that every term has to survive."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from training.losses.combined import EmbeddingLoss

SETTINGS: list[dict[str, Any]] = [{}, {"unlabeled": 0}, {"object_loss": "bce"}]


@pytest.mark.parametrize("settings", SETTINGS)
def test_ignored_pixels_take_part_in_no_term(settings: dict[str, Any]) -> None:
    """The terms are those of the patch without them, and they have no gradient."""
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 5, (6, 8)))
    labels[:, ::3] = 9  # whole columns, so that what is left is a patch
    torch.manual_seed(0)
    embeddings = torch.randn(1, 3, 6, 8, requires_grad=True)
    teacher = torch.randn(1, 3, 6, 8)
    left = labels[0] != 9
    torch.manual_seed(1)
    found = EmbeddingLoss(ignore=9, **settings)(embeddings, labels[None], teacher)
    torch.manual_seed(1)
    expected = EmbeddingLoss(**settings)(
        embeddings.detach()[..., left], labels[None][..., left], teacher[..., left]
    )
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-5), name
    found["loss"].backward()
    assert embeddings.grad is not None
    assert (embeddings.grad[..., ~left] == 0).all()
    assert (embeddings.grad[..., left] != 0).any()


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("neighbourhood", [None, 2])
def test_a_patch_of_ignored_pixels_costs_nothing(
    settings: dict[str, Any], neighbourhood: int | None
) -> None:
    embeddings = torch.randn(1, 3, 6, 8, requires_grad=True)
    labels = torch.full((1, 6, 8), 9)
    loss = EmbeddingLoss(ignore=9, neighbourhood=neighbourhood, **settings)
    terms = loss(embeddings, labels, torch.randn(1, 3, 6, 8))
    terms["loss"].backward()
    assert terms["loss"].item() == 0
    assert embeddings.grad is not None
    assert (embeddings.grad == 0).all()


def test_boxes_are_where_they_were_with_ignored_pixels_between() -> None:
    """Ignored columns keep their width: instances on both sides are not near."""
    labels = torch.tensor([[1, 9, 9, 9, 2]])
    embeddings = torch.zeros(1, 2, 1, 5)
    for gap, expected in ((3, 0.0), (4, 16.0)):
        terms = EmbeddingLoss(ignore=9, neighbourhood=gap)(embeddings, labels[None])
        assert terms["push"].item() == expected


@pytest.mark.parametrize("object_loss", ["dice", "bce"])
@pytest.mark.parametrize("unlabeled", [None, 0])
def test_five_hundred_instances_of_which_many_are_cut_by_the_patch(
    object_loss: str, unlabeled: int | None
) -> None:
    """Stripes of 7 pixels in flat order: cut by the border, some of one pixel."""
    labels = (torch.arange(3500) // 7).reshape(1, 50, 70) + 1
    labels[0, ::5, ::5] = 0
    labels[0, 0, 6] = 777  # an instance of one pixel
    torch.manual_seed(0)
    embeddings = torch.randn(1, 4, 50, 70, requires_grad=True)
    loss = EmbeddingLoss(object_loss=object_loss, unlabeled=unlabeled)
    terms = loss(embeddings, labels, embeddings.detach() + 0.1)
    terms["loss"].backward()
    assert embeddings.grad is not None
    assert all(torch.isfinite(value) for value in terms.values())
    assert torch.isfinite(embeddings.grad).all()
