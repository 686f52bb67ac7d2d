"""The sums of the Dice loss have the values and the slopes that automatic differentiation finds."""

import pytest
import torch
from torch import Tensor

from training.losses import chunks
from training.losses.mask_sums import Near, mask_sums

FACTOR = -0.6


def literal(embeddings: Tensor, anchors: Tensor, index: Tensor | None, near: Tensor) -> Tensor:
    """(2, C), written as the sums are defined."""
    masks = 2 ** (FACTOR * ((anchors[:, None] - embeddings[None]) ** 2).sum(2))
    own = torch.zeros_like(masks)
    if index is not None:
        own[index, torch.arange(len(index))] = 1
    return torch.stack([(masks * own).sum(1), (masks**2 * near).sum(1)])


@pytest.mark.parametrize("labeled", [True, False])
@pytest.mark.parametrize("everywhere", [True, False])
def test_sums_and_slopes_over_several_chunks_are_those_of_the_definition(
    labeled: bool, everywhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 12)  # 4 pixels of 3 instances; the last chunk has 2
    torch.manual_seed(0)
    embeddings = torch.randn(10, 4, dtype=torch.float64, requires_grad=True)
    anchors = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    index = torch.randint(0, 3, (10,)) if labeled else None
    counts = torch.ones(3, 10, dtype=torch.float64) if everywhere else torch.randint(0, 2, (3, 10))
    near: Near | None = None if everywhere else lambda part: counts[:, part].double()

    found = mask_sums(embeddings, anchors, index, near, FACTOR)
    expected = literal(embeddings, anchors, index, counts)
    torch.testing.assert_close(found, expected)

    weights = torch.randn(2, 3, dtype=torch.float64)
    slopes = torch.autograd.grad((found * weights).sum(), (embeddings, anchors))
    wanted = torch.autograd.grad((expected * weights).sum(), (embeddings, anchors))
    torch.testing.assert_close(slopes, wanted)


@pytest.mark.parametrize(("pixels", "instances"), [(0, 3), (5, 0), (0, 0)])
def test_without_pixels_or_instances_the_sums_are_zero(pixels: int, instances: int) -> None:
    embeddings = torch.randn(pixels, 4, requires_grad=True)
    sums = mask_sums(embeddings, torch.randn(instances, 4), None, None, FACTOR)
    assert torch.equal(sums, torch.zeros(2, instances))
    sums.sum().backward()
    assert embeddings.grad is not None
    assert torch.equal(embeddings.grad, torch.zeros(pixels, 4))
