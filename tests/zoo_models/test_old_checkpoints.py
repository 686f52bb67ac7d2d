"""Checkpoints of the authors' code give the numbers that their network gave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from zoo_models.checkpoint import Checkpoint, Normalisation
from zoo_models.errors import CheckpointError
from zoo_models.old_checkpoints import Told, import_checkpoint

TOLD = Told(Normalisation(gain=1 / 255, offset=-0.25), delta_v=0.4, delta_d=1.5)
State = dict[str, torch.Tensor]


def old_state(
    maps: list[int], *, norm: str, ndim: int = 2, channels: int = 1, dim: int = 5
) -> State:
    """Names and shapes as their code makes them, and random numbers as training leaves them."""
    random = torch.Generator().manual_seed(0)
    state: State = {}

    def single(name: str, i: int, o: int) -> None:
        if norm != "none":
            names = [
                "weight",
                "bias",
                *(["running_mean", "running_var"] if norm == "batch" else []),
            ]
            for part in names:
                state[f"{name}.{norm}norm.{part}"] = torch.rand(i, generator=random) + 0.5
        if norm == "batch":
            state[f"{name}.batchnorm.num_batches_tracked"] = torch.tensor(7)
        spread = (2 / (i * 3**ndim)) ** 0.5
        state[f"{name}.conv.weight"] = spread * torch.randn(o, i, *[3] * ndim, generator=random)
        if norm == "none":
            state[f"{name}.conv.bias"] = 0.1 * torch.randn(o, generator=random)

    for n, (i, o) in enumerate(zip([channels, *maps[:-1]], maps, strict=True)):
        middle = max(o // 2, i)
        single(f"encoders.{n}.basic_module.SingleConv1", i, middle)
        single(f"encoders.{n}.basic_module.SingleConv2", middle, o)
    for n, (o, i) in enumerate(zip(maps[-2::-1], maps[:0:-1], strict=True)):
        single(f"decoders.{n}.basic_module.SingleConv1", o + i, o)
        single(f"decoders.{n}.basic_module.SingleConv2", o, o)
    state["final_conv.weight"] = torch.randn(dim, maps[0], *[1] * ndim, generator=random)
    state["final_conv.bias"] = torch.randn(dim, generator=random)
    return state


def published(x: torch.Tensor, state: State, *, levels: int) -> torch.Tensor:
    """The published network as a plain sequence of operations on the old names."""
    ndim = x.ndim - 2
    convolve = F.conv2d if ndim == 2 else F.conv3d
    pool = F.max_pool2d if ndim == 2 else F.max_pool3d

    def double(x: torch.Tensor, name: str) -> torch.Tensor:
        for number in (1, 2):
            part = f"{name}.basic_module.SingleConv{number}"
            if f"{part}.batchnorm.weight" in state:
                shape = (1, -1, *[1] * ndim)
                mean, variance, weight, bias = (
                    state[f"{part}.batchnorm.{n}"].reshape(shape)
                    for n in ("running_mean", "running_var", "weight", "bias")
                )
                x = (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias
            if f"{part}.groupnorm.weight" in state:
                groups = 1 if x.shape[1] < 8 else 8
                weight, bias = (state[f"{part}.groupnorm.{n}"] for n in ("weight", "bias"))
                x = F.group_norm(x, groups, weight, bias, 1e-5)
            bias_of = state.get(f"{part}.conv.bias")
            x = F.relu(convolve(x, state[f"{part}.conv.weight"], bias_of, padding=1))
        return x

    features = [double(x, "encoders.0")]
    for level in range(1, levels + 1):
        features.append(double(pool(features[-1], 2), f"encoders.{level}"))
    x = features.pop()
    for number, skip in enumerate(reversed(features)):
        x = F.interpolate(x, size=skip.shape[2:], mode="nearest")
        x = double(torch.cat([skip, x], dim=1), f"decoders.{number}")
    return convolve(x, state["final_conv.weight"], state["final_conv.bias"])


def written(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def imported(folder: Path, content: Any) -> Checkpoint:
    return import_checkpoint(written(folder / "best_checkpoint.pytorch", content), TOLD)


NETWORKS = [
    ([8, 16, 32], {"norm": "batch", "channels": 3}, (16, 24)),
    ([16, 32], {"norm": "group", "ndim": 3}, (6, 8, 10)),
    ([8, 16], {"norm": "group", "channels": 3}, (8, 6)),
    ([4, 8, 16, 16], {"norm": "none", "channels": 9}, (16, 8)),
]


@pytest.mark.parametrize(("maps", "kwargs", "size"), NETWORKS)
def test_an_imported_network_answers_what_the_published_one_answers(
    tmp_path: Path, maps: list[int], kwargs: dict[str, Any], size: tuple[int, ...]
) -> None:
    state = old_state(maps, **kwargs)
    x = torch.randn(2, kwargs.get("channels", 1), *size, generator=torch.Generator().manual_seed(1))
    expected = published(x, state, levels=len(maps) - 1)
    checkpoint = imported(tmp_path, {"model_state_dict": state, "epoch": 3, "optimizer": {}})
    with torch.no_grad():
        answer = checkpoint.network()(x)
    assert float(expected.std()) > 0.1
    assert (answer - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_network_is_inferred_and_the_rest_is_told(tmp_path: Path) -> None:
    state = old_state([8, 16, 32], norm="batch", ndim=3, channels=2, dim=6)
    checkpoint = imported(tmp_path, {"model_state_dict": state})
    assert checkpoint.kwargs == {
        "ndim": 3, "in_channels": 2, "embedding_dim": 6, "width": 8, "max_width": 32, "levels": 2,
        "factor": 2, "kernel": 3, "norm": "batch",
    }  # fmt: skip
    assert (checkpoint.architecture, checkpoint.axes) == ("unet_same", "zyx")
    assert (checkpoint.delta_v, checkpoint.delta_d) == (0.4, 1.5)
    assert checkpoint.normalisation == TOLD.normalisation
    assert checkpoint.geometry.halo == (24, 24, 24)
    checkpoint.save(tmp_path / "ours.safetensors")
    assert Checkpoint.load(tmp_path / "ours.safetensors").kwargs == checkpoint.kwargs


def test_the_papers_networks_get_the_halo_they_need(tmp_path: Path) -> None:
    """Table 6: 2D, 5 poolings, batch norm. Its input sizes must be multiples of 32."""
    state = old_state([16, 32, 64, 128, 256, 512], norm="batch", channels=3, dim=16)
    geometry = imported(tmp_path, state).geometry
    assert geometry.period == (32, 32)
    assert geometry.shrink == (190, 190)
    assert geometry.halo == (192, 192)
    assert geometry.minimum == (448, 448)


@pytest.mark.parametrize(
    "wrappers", [("", None), ("module.", None), ("net_f.", "net_g."), ("module.unet_q.", "unet_k.")]
)
def test_prefixes_of_wrappers_are_taken_off_and_f_is_taken(
    tmp_path: Path, wrappers: tuple[str, str | None]
) -> None:
    f, g = wrappers
    state = old_state([4, 8], norm="batch")
    content = {f + name: tensor for name, tensor in state.items()}
    if g:
        outer = "module." if f.startswith("module.") else ""
        content |= {outer + g + name: torch.zeros_like(t) for name, t in state.items()}
    weights = imported(tmp_path, {"model_state_dict": content}).weights
    assert torch.equal(weights["head.weight"], state["final_conv.weight"])
    first = state["encoders.0.basic_module.SingleConv1.conv.weight"]
    assert torch.equal(weights["encoder.0.1.weight"], first)


# --- What cannot be imported -------------------------------------------------------------------


def test_missing_and_unknown_and_misshapen_tensors_are_told_at_once(tmp_path: Path) -> None:
    state = old_state([4, 8], norm="batch")
    del state["decoders.0.basic_module.SingleConv1.conv.weight"]
    state["dropout.strength"] = torch.tensor(1.0)
    state["final_conv.bias"] = torch.zeros(9)
    with pytest.raises(
        CheckpointError,
        match=r"missing: decoders\.0\.basic_module\.SingleConv1\.conv\.weight; "
        r"unknown: dropout\.strength; of another shape: final_conv\.bias 9 \(expected 5\)",
    ) as caught:
        imported(tmp_path, state)
    assert "\n" not in str(caught.value)


def test_a_whole_level_that_is_missing_is_told(tmp_path: Path) -> None:
    state = {n: t for n, t in old_state([4, 8, 16], norm="none").items() if "encoders.1" not in n}
    with pytest.raises(CheckpointError, match=r"unknown: encoders\.2"):
        imported(tmp_path, state)


def test_a_norm_after_the_convolution_is_told_from_one_before_it(tmp_path: Path) -> None:
    state = old_state([4, 8], norm="batch")
    for name, tensor in state.items():
        if "batchnorm" in name and tensor.ndim:
            outputs = len(state[name.rsplit(".", 2)[0] + ".conv.weight"])
            state[name] = torch.ones(outputs)
    with pytest.raises(CheckpointError, match=r"order norm, convolution, ReLU.*another shape"):
        imported(tmp_path, state)


def test_feature_maps_that_do_not_double_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"found \[4, 12, 24\].*twice"):
        imported(tmp_path, old_state([4, 12, 24], norm="none"))


def test_channels_that_make_no_groups_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="divisible by num_groups"):
        imported(tmp_path, old_state([12, 24], norm="group"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model_state_dict": {"fc.weight": torch.ones(2, 2)}}, "found fc.weight, expected enc"),
        ({"model_state_dict": {}}, "found nothing"),
        ({"state": 3, "epoch": 1}, "found state, epoch, expected tensors"),
        ([1, 2], "list"),
    ],
)
def test_files_of_other_programs_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        imported(tmp_path, content)


class Sneaky:
    """Would run code when it is unpickled without care."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('executed')",))


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no plain tensors"):
        imported(tmp_path, {"model_state_dict": Sneaky()})


def test_a_file_that_is_missing_or_no_torch_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        import_checkpoint(tmp_path / "none.pytorch", TOLD)
    (tmp_path / "text.pytorch").write_text("hello")
    with pytest.raises(CheckpointError, match="expected a checkpoint of kreshuklab/spoco"):
        import_checkpoint(tmp_path / "text.pytorch", TOLD)
