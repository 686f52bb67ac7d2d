"""Sums in chunks are the sums, and their gradients; and the memory that is saved by them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from training.losses import chunks
from training.losses.combined import EmbeddingLoss

VARIANTS: list[dict[str, Any]] = [
    {},
    {"neighbourhood": 1},
    {"object_loss": "bce", "neighbourhood": 1},
    {"unlabeled": 0},
    {"unlabeled": 0, "neighbourhood": 1, "object_loss": "bce"},
    {"unlabeled": 0, "ignore": 3},
]


def terms_and_gradient(
    embeddings: Tensor, labels: Tensor, settings: dict[str, Any]
) -> tuple[dict[str, float], Tensor]:
    given = embeddings.clone().requires_grad_()
    torch.manual_seed(4)
    terms = EmbeddingLoss(**settings)(given, labels, given.detach() * 1.1)
    terms["loss"].backward()
    assert given.grad is not None
    return {name: value.item() for name, value in terms.items()}, given.grad


@pytest.mark.parametrize("settings", VARIANTS)
@pytest.mark.parametrize("kept", [0, 1 << 30])
@pytest.mark.parametrize("shape", [(9, 11), (3, 5, 7)])
def test_many_small_chunks_give_what_one_gives(
    settings: dict[str, Any], kept: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    embeddings, labels = torch.randn(2, 3, *shape), torch.randint(0, 5, (2, *shape))
    expected, slope = terms_and_gradient(embeddings, labels, settings)
    monkeypatch.setattr(chunks, "CHUNK", 40)
    monkeypatch.setattr(chunks, "KEPT", kept)
    found, gradient = terms_and_gradient(embeddings, labels, settings)
    assert found == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-6)


def test_gradients_are_right_of_pixels_and_of_what_is_shared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chunks, "KEPT", 0)
    monkeypatch.setattr(chunks, "CHUNK", 6)
    torch.manual_seed(0)
    pixels, shared = (torch.randn(n, 2, dtype=torch.float64, requires_grad=True) for n in (7, 3))
    weights = torch.arange(7.0, dtype=torch.float64)  # has no gradient

    def summed(pixels: Tensor, shared: Tensor) -> Tensor:
        def function(p: Tensor, w: Tensor, s: Tensor) -> Tensor:
            return (torch.sin(s @ p.T) * w).sum(1)

        return chunks.sum_over_pixels(function, (pixels, weights), (shared,), width=3)

    expected = (torch.sin(shared @ pixels.T) * weights).sum(1)
    torch.testing.assert_close(summed(pixels, shared), expected)
    assert torch.autograd.gradcheck(summed, (pixels, shared))


def test_what_is_computed_again_is_in_float32_under_autocast_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    embeddings, labels = torch.randn(1, 3, 9, 11), torch.randint(0, 5, (1, 9, 11))
    monkeypatch.setattr(chunks, "KEPT", 0)
    monkeypatch.setattr(chunks, "CHUNK", 40)
    _, expected = terms_and_gradient(embeddings, labels, {})
    with torch.autocast("cpu", torch.bfloat16):
        _, found = terms_and_gradient(embeddings, labels, {})
    assert torch.equal(found, expected)


@pytest.mark.parametrize("settings", VARIANTS)
def test_the_same_seed_gives_the_same_loss_and_gradient(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    embeddings, labels = torch.randn(2, 3, 4, 9, 11), torch.randint(0, 5, (2, 4, 9, 11))
    first, second = (terms_and_gradient(embeddings, labels, settings) for _ in range(2))
    assert first[0] == second[0]
    assert torch.equal(first[1], second[1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("case", ["full", "full, bce", "sparse", "sparse, neighbours"])
def test_two_hundred_instances_on_a_large_patch_add_less_than_2_gib(case: str) -> None:
    """512 x 512 x 16 pixels; on top of the embeddings and labels, the gradient among it."""
    script = Path(__file__).parents[3] / "benchmarks" / "losses_memory.py"
    done = subprocess.run(
        [sys.executable, script, "--case", case], check=True, capture_output=True, text=True
    )
    added = float(done.stdout.splitlines()[-1].split()[-2])
    assert 0.25 < added < 2  # the gradient alone is 0.25
