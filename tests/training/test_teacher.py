"""The four teachers: where their weights come from, and where their gradients go."""

from __future__ import annotations

import copy
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from training.sections import TeacherSection
from training.teacher import Momentum, Shared, Trained, build_teacher, named_as_in
from zoo_models.architectures.unet_same import UNetSame
from zoo_models.architectures.unet_valid import SameSizeUNet, UNetValid
from zoo_models.checkpoint import answering_part

Kind = Literal["momentum", "shared", "dropout", "trained"]


def student() -> UNetValid:
    torch.manual_seed(0)
    return UNetValid(width=4, levels=1, convolutions=1, embedding_dim=3)


def images() -> Tensor:
    return torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))


def teacher(kind: Kind, network: UNetValid, momentum: float = 0.999) -> Shared:
    return build_teacher(TeacherSection(kind=kind, momentum=momentum), network)


def optimise(network: UNetValid, *, steps: int = 1) -> None:
    optimiser = torch.optim.Adam(network.parameters(), lr=0.1)
    for _ in range(steps):
        optimiser.zero_grad()
        (network(images()) ** 2).mean().backward()
        optimiser.step()


def test_momentum_weights_are_the_running_mean_of_the_students() -> None:
    network = student()
    g = teacher("momentum", network, momentum=0.9)
    assert isinstance(g, Momentum)
    expected = [p.detach().double().numpy() for p in network.parameters()]
    for _ in range(3):
        optimise(network)
        g.after_step(network)
        pairs = zip(expected, network.parameters(), strict=True)
        expected = [0.9 * mine + 0.1 * theirs.detach().double().numpy() for mine, theirs in pairs]
    for mine, theirs in zip(g.network.parameters(), expected, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-4, atol=1e-6)


def test_momentum_buffers_are_the_students_own() -> None:
    network = student()
    g = teacher("momentum", network)
    assert isinstance(g, Momentum)
    optimise(network, steps=2)
    g(images() + 3, network)  # batch norm sees other statistics, which do not last
    g.after_step(network)
    theirs = dict(network.named_buffers())
    for name, mine in g.network.named_buffers():
        assert torch.equal(mine, theirs[name]), name
    assert theirs["encoder.0.1.num_batches_tracked"] == 2


@pytest.mark.parametrize(
    ("kind", "to_student", "to_teacher"),
    [
        ("momentum", False, False),
        ("shared", True, False),
        ("dropout", True, False),
        ("trained", False, True),
    ],
)
def test_gradients_reach_the_weights_that_the_kind_says(
    kind: Kind, to_student: bool, to_teacher: bool
) -> None:
    network = student()
    g = teacher(kind, network)
    out = g(images(), network)
    assert out.requires_grad == (to_student or to_teacher)
    if out.requires_grad:
        (out**2).sum().backward()
    assert any(p.grad is not None for p in network.parameters()) == to_student
    assert any(p.grad is not None for p in g.parameters()) == to_teacher


def test_a_shared_teacher_is_the_student_and_a_dropout_teacher_is_it_but_for_its_depth() -> None:
    network = student().eval()
    plain = network(images())
    assert torch.equal(teacher("shared", network)(images(), network), plain)
    g = teacher("dropout", network)
    first, second = g(images(), network), g(images(), network)
    assert not torch.allclose(first, plain)
    assert not torch.allclose(first, second)
    assert torch.equal(network(images()), plain)  # the student itself has no dropout left
    with torch.no_grad():
        network.up[0].enlarge.weight.zero_()  # type: ignore[union-attr, operator]
        plain = network(images())  # nothing comes up from the depth any more
        assert torch.equal(g(images(), network), plain)


def test_half_of_the_deepest_features_are_dropped_and_the_others_doubled() -> None:
    network, seen = student().eval(), []
    g = teacher("dropout", network)
    before = network.up[0].register_forward_hook(lambda _m, given, _out: seen.append(given[0]))
    network(images())
    g(images(), network)
    before.remove()
    plain, dropped = seen
    alive = plain != 0
    rate = (dropped[alive] == 0).float().mean()
    assert 0.4 < rate < 0.6
    stays = dropped != 0
    torch.testing.assert_close(dropped[stays], 2 * plain[stays])


def test_a_trained_teacher_starts_from_weights_of_its_own() -> None:
    network = student()
    g = teacher("trained", network)
    assert isinstance(g, Trained)
    assert not torch.equal(g.network.head.weight, network.head.weight)  # type: ignore[union-attr, arg-type]
    before = g.network.head.weight.clone()  # type: ignore[union-attr, operator]
    g.after_step(network)
    assert torch.equal(g.network.head.weight, before)  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("kind", ["momentum", "trained"])
def test_teachers_with_weights_start_from_a_given_checkpoint_too(
    kind: Kind,
) -> None:
    network = student()
    g = teacher(kind, network).eval()
    optimise(network)
    network.eval()
    assert not torch.equal(g(images(), network), network(images()))
    g.start_from(network)
    assert torch.equal(g(images(), network), network(images()))


@pytest.mark.parametrize("kind", ["shared", "dropout"])
def test_a_teacher_that_is_the_student_leaves_its_running_statistics_alone(kind: Kind) -> None:
    network = student()
    before = {name: b.clone() for name, b in network.named_buffers()}
    teacher(kind, network)(images() + 3, network)
    for name, buffer in network.named_buffers():
        assert torch.equal(buffer, before[name]), name


@pytest.mark.parametrize("architecture", [SameSizeUNet, UNetSame])
def test_a_teachers_weights_get_the_names_of_the_whole_network(architecture: type) -> None:
    torch.manual_seed(0)
    network = architecture(width=4, levels=1, embedding_dim=3).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trained = Trained(answering_part(network))
    named = named_as_in(network, trained.network.state_dict())
    assert named.keys() == before.keys()
    teacher = copy.deepcopy(network)
    teacher.load_state_dict(named)
    images = torch.rand(1, 1, 32, 32)
    expected = trained.network.eval()(images)
    assert torch.equal(answering_part(teacher)(images), expected)
    assert not torch.equal(answering_part(network)(images), expected)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["momentum", "shared", "dropout", "trained"])
def test_a_teacher_beside_a_compiled_student_lets_gradients_through(kind: Kind) -> None:
    network = student()
    g = teacher(kind, network)
    theirs = g(images(), network)
    mine = torch.compile(network)(images())
    ((mine - theirs) ** 2).mean().backward()
    assert all(p.grad is not None for p in network.parameters())
