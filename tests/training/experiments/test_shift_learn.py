"""Synthetic pictures, and networks trained on them once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.experiments.shift_equivariance import learn as learn_module
from training.experiments.shift_equivariance.learn import bent, learn, sample
from training.experiments.shift_equivariance.pictures import Discs, Ones
from training.experiments.shift_equivariance.setups import Setup
from training.experiments.shift_equivariance.synthetic import FULL, QUICK
from zoo_models.errors import InputError
from zoo_models.geometry import Box

TINY = Setup("tiny", Discs(6, 1.5), 1, "learnt", 10, 12, 1e-3, width=2, shifts=7)


def test_discs_are_the_same_wherever_the_picture_begins() -> None:
    discs = Discs(7, 2)
    box = Box((0, 0), (21, 28))
    labels, image = discs.labels(box), discs.image(box)[0]
    assert np.array_equal(image > 0, labels > 0)
    assert len(np.unique(labels)) == 1 + 3 * 4
    areas = np.unique(labels[labels > 0], return_counts=True)[1]
    assert set(areas) == {13}  # pixels within 2 of a pixel
    for y in discs.centres(3):
        assert labels[y, discs.centres(4)].all()
    assert np.array_equal(discs.image(Box((-14, -7), (7, 21)))[0], image)
    assert np.unique(Ones().labels(box)).size == box.size


def test_what_a_step_sees_depends_on_seed_and_step_alone() -> None:
    setup = replace(TINY, noise=0.1)
    first, again, other = (sample(setup, seed=1, step=s) for s in (3, 3, 4))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert first[0].shape == (1, 1, setup.read, setup.read)
    assert first[1].shape == (1, 10, 10)


def test_labels_lie_where_the_network_answers() -> None:
    pixels, labels = sample(TINY, seed=0, step=0)
    margin = TINY.axis.shrink
    inside = pixels[0, 0, margin : margin + 10, margin : margin + 10]
    assert torch.equal(inside > 0, labels[0] > 0)


def test_only_the_first_cells_count() -> None:
    _, labels = sample(replace(TINY, shifts=1, window=20, cells=2), seed=0, step=0)
    assert (labels[0, :12, :12] >= 0).all()
    assert (labels[0, 12:] == -1).all()
    assert (labels[0, :, 12:] == -1).all()
    assert len(torch.unique(labels[labels > 0])) == 4


def test_bending_moves_image_and_labels_alike_and_keeps_ids() -> None:
    box = Box((0, 0), (90, 90))
    discs = Discs(15, 5)
    image, labels = bent(discs.image(box), discs.labels(box), seed=1)
    assert set(np.unique(labels)) <= set(np.unique(discs.labels(box)))
    assert (labels != discs.labels(box)).any()
    assert ((image[0] > 0.5) == (labels > 0)).mean() > 0.97


def test_a_finished_network_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = learn(TINY, tmp_path, seed=5)
    monkeypatch.setattr(learn_module, "_train", None)  # a second training would call it
    again = learn(TINY, tmp_path, seed=5)
    for one, other in zip(first.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(one, other)
    assert (again.seconds, again.loss) == (first.seconds, first.loss)
    with pytest.raises(InputError, match="a network of another setup, expected tiny"):
        learn(replace(TINY, lr=0.1), tmp_path, seed=5)


def test_a_cut_training_ends_as_one_that_was_not_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = learn(TINY, tmp_path / "whole")
    monkeypatch.setattr(learn_module, "SECONDS_BETWEEN_STATES", 0)

    def cut(_: str, done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(TINY, tmp_path / "cut", progress=cut)
    steps: list[int] = []
    goes_on = learn(TINY, tmp_path / "cut", progress=lambda _, done, total: steps.append(done))
    assert steps == list(range(7, 13))
    assert goes_on.loss == pytest.approx(whole.loss)
    for one, other in zip(whole.network.parameters(), goes_on.network.parameters(), strict=True):
        assert torch.allclose(one, other)


@pytest.mark.parametrize("setups", [QUICK, FULL], ids=["quick", "full"])
def test_declared_setups_are_what_the_figures_need(setups: dict[str, Setup]) -> None:
    assert all(name == setup.name for name, setup in setups.items())
    assert QUICK.keys() == FULL.keys()
    for name, setup in setups.items():
        if isinstance(setup.picture, Discs):
            phase = setup.picture.spacing % setup.period
            assert (phase == 0) == (name in ("same-phase", "noise", "elastic")), name
            assert setup.cells in (0, setup.period), name
    assert setups["window-P"].window == setups["window-P"].period
    assert setups["window-above-P"].window == setups["window-P"].period + 4


def test_full_setups_read_what_the_paper_reads() -> None:
    reads = {name: (FULL[name].read, FULL[name].window) for name in FULL}
    assert reads["coprime-learnt"] == (220, 128)
    assert (reads["window-P"], reads["window-above-P"]) == ((204, 16), (204, 20))
    assert reads["noise"] == (236, 52)
    assert reads["ones-padded"] == (40, 40)
