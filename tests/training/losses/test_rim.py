"""The background beside the instances, against a literal transcription."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_cdt

from tests.training.losses.test_losses import patch
from training.losses.combined import EmbeddingLoss
from training.losses.rim import WIDTH, rim


def literal_rim(embeddings: np.ndarray, labels: np.ndarray, delta_v: float) -> float:
    mean = embeddings[:, labels == 0].mean(axis=1)
    distance = distance_transform_cdt(labels == 0, metric="chessboard")
    hinges = []
    for pixel in np.argwhere((labels == 0) & (distance <= WIDTH)):
        length = float(np.linalg.norm(embeddings[:, *pixel] - mean))
        hinges.append(max(0.0, length - delta_v) ** 2)
    return float(np.mean(hinges))


@pytest.mark.parametrize("shape", [(3, 12, 15), (2, 9, 10, 11)])
def test_it_is_the_pull_of_the_background_near_instances(shape: tuple[int, ...]) -> None:
    embeddings, labels = patch(shape, 2)
    labels[:] = 0
    labels[3:5, 4:6] = 1
    labels[6:8, 6:8] = 2
    found = rim(torch.from_numpy(embeddings), torch.from_numpy(labels), 0.5)
    assert found.item() == pytest.approx(literal_rim(embeddings, labels, 0.5), rel=1e-5)
    assert found.item() != pytest.approx(literal_rim(embeddings, (labels == 1) * 1, 0.5), rel=1e-3)


def test_its_gradient_moves_background_pixels_only() -> None:
    embeddings, labels = patch((3, 12, 15), 2)
    given = torch.from_numpy(embeddings).double().requires_grad_()
    truth = torch.from_numpy(labels * 0)
    truth[3:5, 4:6] = 1
    rim(given, truth, 0.5).backward()
    assert given.grad is not None
    assert not given.grad[:, truth == 1].any()
    assert given.grad[:, 2, 4].any()  # beside the instance


@pytest.mark.parametrize("label", [0, 1])
def test_a_patch_of_background_or_of_one_object_alone_has_no_rim(label: int) -> None:
    embeddings, _ = patch((3, 8, 9), 1)
    given = torch.from_numpy(embeddings).requires_grad_()
    found = rim(given, torch.full((8, 9), label), 0.5)
    found.backward()
    assert found.item() == 0


def test_ignored_pixels_are_no_instances() -> None:
    embeddings, labels = patch((3, 12, 15), 1)
    labels[3:5, 4:6] = 7
    given = torch.from_numpy(embeddings), torch.from_numpy(labels)
    assert rim(*given, 0.5, ignore=7).item() == 0
    assert rim(*given, 0.5).item() > 0


def test_the_loss_adds_it_with_its_weight() -> None:
    embeddings, labels = patch((3, 12, 15), 1)
    labels[3:5, 4:6] = 1
    given = torch.from_numpy(embeddings)[None], torch.from_numpy(labels)[None]
    plain = EmbeddingLoss(anchor="mean")(*given)
    both = EmbeddingLoss(anchor="mean", rim_weight=2.0)(*given)
    assert "rim" not in plain
    assert both["loss"].item() == pytest.approx(plain["loss"].item() + 2 * both["rim"].item())
