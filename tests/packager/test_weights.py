"""A weight file answers like the network, at sizes it was never made with, or is refused."""

import hashlib
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from packager.kinds import product
from packager.weights import (
    largest_difference,
    refuse_training_mode,
    untraced_shapes,
    write_onnx,
    write_state_dict,
    write_torchscript,
)
from zoo_models.checkpoint import Checkpoint
from zoo_models.errors import ExportError

NAMES = ("input", "embeddings")
FAR = 0.01  # relative: a wrong network is much farther off


class RemembersSize(nn.Module):
    """What tracing freezes: a crop computed from the shape in Python."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.ones(int(x.shape[-1]))


@pytest.fixture(scope="module")
def volume(make: Callable[..., Checkpoint]) -> Checkpoint:
    """A 3D network, anisotropic and with nearest upsampling: operators that 2D does not have."""
    return make(ndim=3, levels=1, factor=[1, 2, 2], upsampling="nearest", width=2)


@pytest.fixture(scope="module")
def volume_files(volume: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("volume")
    example = torch.rand(1, 1, *volume.geometry.minimum)
    write_torchscript(volume.network(), example, folder / "weights.torchscript.pt")
    write_onnx(volume.network(), example, folder / "weights.onnx", names=NAMES)
    return folder


@pytest.mark.parametrize("name", ["weights.torchscript.pt", "weights.onnx"])
def test_a_volume_network_is_right_at_sizes_never_traced(
    volume: Checkpoint, volume_files: Path, name: str
) -> None:
    shapes = untraced_shapes(product(volume, ("grey",)).axes, 1)
    assert {len(shape) for shape in shapes} == {5}
    assert shapes[0][0] == 2  # another batch size, too
    assert largest_difference(volume.network(), volume_files / name, shapes) < 1e-5


def test_the_onnx_file_is_old_enough_free_in_size_and_without_paths(volume_files: Path) -> None:
    model = onnx.load(volume_files / "weights.onnx")
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    assert model.ir_version <= 8
    shape = model.graph.input[0].type.tensor_type.shape
    assert [d.dim_param or d.dim_value for d in shape.dim] == ["batch", 1, "z", "y", "x"]
    content = (volume_files / "weights.onnx").read_bytes()
    assert b".py" not in content
    assert str(Path.home()).encode() not in content


def test_onnx_alone_gives_the_networks_numbers(volume: Checkpoint, volume_files: Path) -> None:
    session = onnxruntime.InferenceSession(
        volume_files / "weights.onnx", providers=["CPUExecutionProvider"]
    )
    size = tuple(
        m + 2 * s for m, s in zip(volume.geometry.minimum, volume.geometry.step, strict=True)
    )
    image = np.random.default_rng(3).random((1, 1, *size), np.float32)
    (found,) = session.run(["embeddings"], {"input": image})
    with torch.no_grad():
        expected = volume.network()(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("write", [write_torchscript, partial(write_onnx, names=NAMES)])
def test_a_network_in_training_mode_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, write: Callable[..., None]
) -> None:
    network = checkpoint.network()
    next(m for m in network.modules() if isinstance(m, nn.BatchNorm2d)).train()
    with pytest.raises(ExportError, match=r"1 part.* in training mode"):
        write(network, torch.rand(1, 1, 48, 48), tmp_path / "weights")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ExportError, match="training mode"):
        write_state_dict(network, tmp_path / "weights")
    refuse_training_mode(network.eval())


def test_a_trace_made_in_training_mode_would_be_far_off(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    network = checkpoint.network()
    shapes = untraced_shapes(product(checkpoint, ("grey",)).axes, 1)
    path = tmp_path / "weights.torchscript.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        traced = torch.jit.trace(network.train(), torch.rand(1, 1, 48, 56), check_trace=False)
    traced.save(str(path))
    assert largest_difference(checkpoint.network(), path, shapes) > FAR


def test_other_weights_are_far_off(
    checkpoint: Checkpoint, make: Callable[..., Checkpoint], tmp_path: Path
) -> None:
    path = tmp_path / "weights.torchscript.pt"
    write_torchscript(make(seed=1).network(), torch.rand(1, 1, 48, 56), path)
    shapes = untraced_shapes(product(checkpoint, ("grey",)).axes, 1)
    assert largest_difference(checkpoint.network(), path, shapes) > FAR


def test_a_network_that_computes_with_sizes_in_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="sizes in Python"):
        write_torchscript(RemembersSize().eval(), torch.rand(1, 1, 8, 8), tmp_path / "x.pt")


def test_a_file_that_does_not_run_is_an_export_error(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    for name in ("weights.torchscript.pt", "weights.onnx"):
        (tmp_path / name).write_bytes(b"no weights")
        with pytest.raises(ExportError, match=f"{name} does not run"):
            largest_difference(checkpoint.network(), tmp_path / name, [(1, 1, 48, 48)])


def test_an_answer_of_another_shape_is_an_export_error(
    checkpoint: Checkpoint, make: Callable[..., Checkpoint], tmp_path: Path
) -> None:
    path = tmp_path / "weights.torchscript.pt"
    write_torchscript(make(embedding_dim=5).network(), torch.rand(1, 1, 48, 56), path)
    with pytest.raises(ExportError, match="shape"):
        largest_difference(checkpoint.network(), path, [(1, 1, 48, 48)])


def test_the_state_dict_loads_safely_and_repeats_its_bytes(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_state_dict(checkpoint.network(), tmp_path / folder / "weights.pt")
    tensors = torch.load(tmp_path / "a" / "weights.pt", weights_only=True)
    assert tensors.keys() == dict(checkpoint.weights).keys()
    assert (tmp_path / "a/weights.pt").read_bytes() == (tmp_path / "b/weights.pt").read_bytes()


TRACE = """
import sys, torch
from pathlib import Path
from packager.weights import write_torchscript
from zoo_models.checkpoint import Checkpoint
checkpoint = Checkpoint.load(Path(sys.argv[1]))
write_torchscript(checkpoint.network(), torch.zeros(1, 1, 48, 56), Path(sys.argv[2]))
"""


def test_the_torchscript_repeats_its_bytes_from_process_to_process(
    checkpoint: Checkpoint, tmp_path: Path, repository: Path
) -> None:
    source = tmp_path / "checkpoint.safetensors"
    checkpoint.save(source)
    digests = set()
    for folder in ("a", "b"):
        path = tmp_path / folder / "weights.torchscript.pt"
        path.parent.mkdir()
        command = [sys.executable, "-W", "ignore", "-c", TRACE, str(source), str(path)]
        subprocess.run(command, check=True, cwd=repository)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1
