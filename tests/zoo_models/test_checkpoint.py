"""A checkpoint rebuilds its network bit by bit, and a file of another kind is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from zoo_models.checkpoint import (
    HEADER_KEY,
    Checkpoint,
    ClustererSettings,
    Normalisation,
    build_network,
    sha256,
)
from zoo_models.errors import CheckpointError, OutputExistsError

KWARGS: dict[str, Any] = {
    "ndim": 2, "in_channels": 2, "embedding_dim": 4, "width": 4, "max_width": 8, "levels": 1,
    "factor": 2, "kernel": [3, 5], "convolutions": 1, "upsampling": "learnt", "norm": "batch",
    "local_radius": 0, "local_floor": [0.1, 0.004],
}  # fmt: skip


@pytest.fixture
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    return Checkpoint(
        architecture="unet_valid",
        kwargs=KWARGS,
        weights=build_network("unet_valid", KWARGS).state_dict(),
        delta_v=0.5,
        delta_d=1.5,
        normalisation=Normalisation(gain=0.25, offset=-1.0),
        axes="yx",
        voxel_size_um=(0.2, 0.1),
        clusterer=ClustererSettings("magic", {"size": 3, "background": [0.5, 1.0]}),
        provenance={"seed": 7, "data": "discs", "nested": {"list": [1, 2.5, None]}},
    )


def rewrite(path: Path, header: object) -> None:
    """The same weights under another header."""
    with safe_open(path, framework="pt") as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    text = header if isinstance(header, str) else json.dumps(header)
    save_file(weights, path, {HEADER_KEY: text})


def header_of(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        header: dict[str, Any] = json.loads(file.metadata()[HEADER_KEY])
    return header


def test_everything_comes_back(checkpoint: Checkpoint, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "new" / "net.safetensors")
    loaded = Checkpoint.load(tmp_path / "new" / "net.safetensors")
    for field in dataclasses.fields(Checkpoint):
        if field.name != "weights":  # the teacher is None here
            assert getattr(loaded, field.name) == getattr(checkpoint, field.name), field.name
    assert loaded.weights.keys() == checkpoint.weights.keys()
    for name, weight in checkpoint.weights.items():
        assert torch.equal(loaded.weights[name], weight)
        assert loaded.weights[name].dtype == weight.dtype
    assert (loaded.in_channels, loaded.embedding_dim) == (2, 4)


def test_the_rebuilt_network_gives_the_same_numbers_in_eval_mode(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    original = build_network("unet_valid", KWARGS)
    original.load_state_dict(dict(checkpoint.weights))
    checkpoint.save(tmp_path / "net.safetensors")
    loaded = Checkpoint.load(tmp_path / "net.safetensors")
    network = loaded.network()
    assert not network.training
    image = torch.rand(1, 2, *loaded.geometry.minimum)
    with torch.no_grad():
        assert torch.equal(network(image), original.eval()(image))


def with_teacher(checkpoint: Checkpoint) -> Checkpoint:
    teacher = {name: weight + 1 for name, weight in checkpoint.weights.items()}
    return dataclasses.replace(checkpoint, teacher=teacher)


def test_a_teacher_comes_back_beside_the_network(checkpoint: Checkpoint, tmp_path: Path) -> None:
    saved = with_teacher(checkpoint)
    saved.save(tmp_path / "net.safetensors")
    loaded = Checkpoint.load(tmp_path / "net.safetensors")
    assert loaded.teacher is not None
    assert loaded.weights.keys() == loaded.teacher.keys() == checkpoint.weights.keys()
    for name, weight in checkpoint.weights.items():
        assert torch.equal(loaded.weights[name], weight)
        assert torch.equal(loaded.teacher[name], weight + 1)
    expected = build_network("unet_valid", KWARGS)
    expected.load_state_dict({name: w + 1 for name, w in checkpoint.weights.items()})
    image = torch.rand(1, 2, *loaded.geometry.minimum)
    with torch.no_grad():
        assert torch.equal(loaded.teacher_network()(image), expected.eval()(image))
    assert not loaded.teacher_network().training


def test_a_teacher_that_shares_tensors_with_the_network_is_written_too(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    same = dataclasses.replace(checkpoint, teacher=checkpoint.weights)
    same.save(tmp_path / "net.safetensors")
    loaded = Checkpoint.load(tmp_path / "net.safetensors").teacher
    assert loaded is not None
    assert all(torch.equal(loaded[name], w) for name, w in checkpoint.weights.items())


def test_a_checkpoint_without_a_teacher_says_how_to_get_one(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    checkpoint.save(tmp_path / "net.safetensors")
    loaded = Checkpoint.load(tmp_path / "net.safetensors")
    assert loaded.teacher is None
    with pytest.raises(CheckpointError, match=r"no teacher: set keep = true in \[teacher\]"):
        loaded.teacher_network()


def test_a_teacher_of_another_network_is_refused(checkpoint: Checkpoint) -> None:
    foreign = {"head.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match="do not fit unet_valid"):
        dataclasses.replace(checkpoint, teacher=foreign).teacher_network()


def test_a_missing_voxel_size_comes_back_missing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    dataclasses.replace(checkpoint, voxel_size_um=None).save(tmp_path / "net.safetensors")
    assert Checkpoint.load(tmp_path / "net.safetensors").voxel_size_um is None


def test_the_same_checkpoint_is_the_same_bytes(checkpoint: Checkpoint, tmp_path: Path) -> None:
    for name in ("a", "b"):
        checkpoint.save(tmp_path / name)
    assert sha256(tmp_path / "a") == sha256(tmp_path / "b")


def test_more_provenance_leaves_the_rest(checkpoint: Checkpoint) -> None:
    more = checkpoint.with_provenance(seed=8, note="again")
    assert more.provenance == {**checkpoint.provenance, "seed": 8, "note": "again"}
    assert checkpoint.provenance["seed"] == 7
    assert more.weights is checkpoint.weights


def test_a_checkpoint_is_not_replaced_unasked(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_text("an earlier one")
    with pytest.raises(OutputExistsError, match="exists already"):
        checkpoint.save(path)
    assert path.read_text() == "an earlier one"
    checkpoint.save(path, overwrite=True)
    assert Checkpoint.load(path).axes == "yx"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("place", ["file/net.safetensors", "folder"])
def test_a_place_where_nothing_can_be_written_is_refused_and_left_as_it_was(
    checkpoint: Checkpoint, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match=r"cannot be written.*choose") as caught:
        checkpoint.save(tmp_path / place, overwrite=True)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{", "header is damaged"),
        ("[]", "header is damaged"),
        ("{}", "checkpoint format None, this version reads format 1; update"),
        ({"format": 2}, "checkpoint format 2, this version reads format 1; update"),
        ({"format": 1}, "header is damaged"),
    ],
)
def test_a_header_that_cannot_be_used_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, header: object, message: str
) -> None:
    path = tmp_path / "net.safetensors"
    checkpoint.save(path)
    rewrite(path, header)
    with pytest.raises(CheckpointError, match=message) as caught:
        Checkpoint.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change", [{"novelty": 1}, {"clusterer": None}, {"normalisation": {"x": 1}}]
)
def test_a_header_with_unknown_or_wrong_fields_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "net.safetensors"
    checkpoint.save(path)
    rewrite(path, {**header_of(path), **change})
    with pytest.raises(CheckpointError, match=r"header is damaged.*as 'spoco-zoo train' wrote it"):
        Checkpoint.load(path)


def test_weights_of_another_network_are_refused(checkpoint: Checkpoint) -> None:
    wider = dataclasses.replace(checkpoint, kwargs={**KWARGS, "width": 6})
    with pytest.raises(
        CheckpointError, match=r"do not fit unet_valid.*Use the checkpoint"
    ) as caught:
        wider.network()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("architecture", "change", "message"),
    [
        ("resnet", {}, r"Unknown architecture 'resnet'.*unet_valid"),
        ("unet_valid", {"depth": 3}, r"unet_valid cannot be built.*depth"),
        ("unet_valid", {"kernel": 4}, r"unet_valid cannot be built.*kernel"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(
    architecture: str, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        build_network(architecture, {**KWARGS, **change})
