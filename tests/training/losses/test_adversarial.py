"""The critic's loss and the generator's term against what is known of them without a network."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.losses.adversarial import Critic, critic_loss, generator_term, mask_pairs


class Linear(nn.Module):
    """D(x) = w x + b: its slope is w everywhere."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, masks: Tensor) -> Tensor:
        return (masks * self.weight).flatten(1).sum(dim=1) + 0.5


class Square(nn.Module):
    """D(x) = |x|^2: its slope is 2 x, so the penalty tells where between the masks it is taken."""

    def forward(self, masks: Tensor) -> Tensor:
        return (masks**2).flatten(1).sum(dim=1)


def masks(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_loss_of_a_linear_critic_is_known() -> None:
    weight, true, soft = masks(3, 4, seed=0), masks(5, 3, 4, seed=1), masks(5, 3, 4, seed=2)
    steepness = math.sqrt((weight**2).sum())
    expected = ((soft - true) * weight).flatten(1).sum(1).mean() + 10 * (steepness - 1) ** 2
    assert critic_loss(Linear(weight), true, soft).item() == pytest.approx(expected.item())
    assert generator_term(Linear(weight), soft).item() == pytest.approx(
        -(soft * weight).flatten(1).sum(1).mean().item() - 0.5
    )


def test_the_penalty_is_taken_at_one_random_place_between_the_masks_of_each_pair() -> None:
    true, soft = masks(4, 2, 3, seed=1).numpy(), masks(4, 2, 3, seed=2).numpy()
    torch.manual_seed(9)
    places = torch.rand(4, 1, 1, dtype=torch.float64).numpy().ravel()
    assert len(set(places)) == 4
    penalties = []
    for u, x, y in zip(places, true, soft, strict=True):
        slope = 2 * (u * x + (1 - u) * y)
        penalties.append((np.sqrt((slope**2).sum()) - 1) ** 2)
    expected = (soft**2).sum((1, 2)).mean() - (true**2).sum((1, 2)).mean() + 7 * np.mean(penalties)
    torch.manual_seed(9)
    pair = torch.from_numpy(true), torch.from_numpy(soft)
    assert critic_loss(Square(), *pair, penalty=7).item() == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(9, 6), (1, 1), (3, 8, 5)])
def test_the_critic_takes_masks_of_any_size(shape: tuple[int, ...]) -> None:
    critic = Critic(len(shape))
    widths = [m.out_channels for m in critic.modules() if hasattr(m, "out_channels")]
    assert widths == [64, 128, 256, 512]
    with torch.no_grad():
        assert critic(torch.rand(2, *shape)).shape == (2,)


def test_gradients_of_the_critic_loss_are_right() -> None:
    """Second derivatives: of the penalty, with respect to the critic's weights."""
    torch.manual_seed(0)
    critic = Critic(2, widths=(2, 3)).double()
    true, soft = masks(2, 5, 5, seed=1), masks(2, 5, 5, seed=2)
    names = [name for name, _ in critic.named_parameters()]

    def loss(*weights: Tensor) -> Tensor:
        torch.manual_seed(1)
        given = dict(zip(names, weights, strict=True))

        class Bound(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                out: Tensor = torch.func.functional_call(critic, given, (x,))
                return out

        return critic_loss(Bound(), true, soft)

    weights = tuple(p.detach().clone().requires_grad_() for p in critic.parameters())
    assert torch.autograd.gradcheck(loss, weights)


def test_a_critic_learns_to_tell_discs_from_noise_and_the_term_rewards_discs() -> None:
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    discs = torch.stack([((y - 5) ** 2 + (x - c) ** 2 < 12).float() for c in range(4, 8)])
    noise = torch.rand(4, 12, 12, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    critic = Critic(2, widths=(8, 8))
    optimiser = torch.optim.Adam(critic.parameters(), lr=1e-2, betas=(0.5, 0.9))
    for _ in range(30):
        optimiser.zero_grad()
        critic_loss(critic, discs, noise).backward()
        optimiser.step()
    assert generator_term(critic, discs) < generator_term(critic, noise) - 0.5


@pytest.mark.parametrize("shape", [(7, 9), (4, 5, 6)])
def test_mask_pairs_are_the_instances_and_what_is_near_their_anchors(
    shape: tuple[int, ...],
) -> None:
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 4, shape)) * 5  # 0, 5, 10, 15
    means = torch.randn(16, 3, generator=torch.Generator().manual_seed(0)) * 9
    embeddings = means[labels].movedim(-1, 0)
    true, soft = mask_pairs(embeddings, labels, delta_v=0.5, t=0.9, unlabeled=0)
    assert true.shape == (3, *shape)
    for number, label in enumerate((5, 10, 15)):
        assert torch.equal(true[number], (labels == label).float())
    torch.testing.assert_close(soft, true, atol=1e-4, rtol=0)
    true, _ = mask_pairs(embeddings, labels, delta_v=0.5, t=0.9, unlabeled=None)
    assert len(true) == 4


def test_without_instances_there_are_no_masks_and_the_term_is_0() -> None:
    embeddings = torch.randn(2, 4, 4, requires_grad=True)
    labels = torch.zeros(4, 4, dtype=torch.long)
    true, soft = mask_pairs(embeddings, labels, delta_v=0.5, t=0.9, unlabeled=0)
    assert true.shape == soft.shape == (0, 4, 4)
    term = generator_term(Critic(2, widths=(2,)), soft)
    term.backward()
    assert term.item() == 0
    assert embeddings.grad is not None
    assert torch.isfinite(embeddings.grad).all()
