"""Every engine gives the network's answer, the same bytes each time; what cannot run says why."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from packager.card import Card
from packager.describe import RDF, Digests, describe
from packager.weights import WEIGHTS, write_onnx, write_state_dict, write_torchscript
from tests.packager.conftest import CARD, disc_image, make_checkpoint, make_subject
from zoo_models.architectures import unet_valid
from zoo_models.checkpoint import Checkpoint, sha256
from zoo_models.errors import InputError
from zoo_models.package_weights import PackageWeights
from zoo_models.prediction import engine_trials, engines
from zoo_models.prediction.engine_trials import LIMITS, fastest_engine
from zoo_models.prediction.engines import (
    ENGINES,
    EngineChoice,
    build_engine,
    has_bfloat16,
)
from zoo_models.prediction.runtimes import RUNTIMES

NEEDS_OPENVINO = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="openvino is not installed"
)
NEEDS_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
INSTALLED = [
    "torchscript",
    "onnxruntime",
    pytest.param("openvino", marks=NEEDS_OPENVINO),
    pytest.param("compile", marks=[pytest.mark.slow, NEEDS_COMPILER]),
]
BFLOAT16 = pytest.mark.skipif(not has_bfloat16("cpu"), reason="this processor has no bfloat16")

Tiles = NDArray[np.float32]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return make_checkpoint(levels=1, local_radius=6)


@pytest.fixture(scope="module")
def package(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Description, all weights, test input."""
    folder = tmp_path_factory.mktemp("package")
    network = checkpoint.network()
    noise = torch.rand(2, 1, *checkpoint.geometry.minimum)
    write_state_dict(network, folder / WEIGHTS["pytorch_state_dict"])
    write_torchscript(network, noise, folder / WEIGHTS["torchscript"])
    write_onnx(network, noise, folder / WEIGHTS["onnx"], names=("input", "embeddings"))
    np.save(folder / "test_input.npy", disc_image((72, 60))[None, None].astype(np.float32))
    (folder / "card.toml").write_text(CARD.replace("sample.tif", "test_input.npy"))
    known = {file.name: sha256(file) for file in folder.iterdir()}
    known["unet_valid.py"] = sha256(Path(unet_valid.__file__))
    card = Card.load(folder / "card.toml")
    digests = Digests(defaultdict(lambda: "0f" * 32, known), "0f" * 32)
    (folder / RDF).write_text(describe(make_subject(checkpoint, card), digests))
    return zipped(folder / "package.zip", {f.name: f.read_bytes() for f in folder.iterdir()})


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def changed(package: Path, path: Path, name: str, old: bytes, new: bytes) -> Path:
    """The package with other bytes in one of its files."""
    with zipfile.ZipFile(package) as archive:
        files = {entry: archive.read(entry) for entry in archive.namelist()}
    assert old in files[name]
    return zipped(path, {**files, name: files[name].replace(old, new)})


@pytest.fixture
def tiles(checkpoint: Checkpoint) -> Tiles:
    """Two tiles of an image."""
    shape = [n + 8 for n in checkpoint.geometry.minimum]
    discs = [disc_image((shape[0], shape[1])), disc_image((shape[0], shape[1]))[::-1]]
    return checkpoint.normalisation.apply(np.asarray(discs, np.float32)[:, None])


def answer(checkpoint: Checkpoint, tiles: Tiles) -> Tiles:
    """What the network itself says, tile after tile."""
    network = checkpoint.network()
    with torch.no_grad():
        return np.concatenate([network(torch.from_numpy(t[None])).numpy() for t in tiles])


def inner(checkpoint: Checkpoint, embeddings: Tiles) -> Tiles:
    y, x = checkpoint.geometry.halo
    return embeddings[:, :, y:-y, x:-x]


def sigmas(found: Tiles, expected: Tiles) -> tuple[float, float]:
    """Largest difference and root of the mean square, in sigma."""
    difference = (found - expected) / expected.std()
    return float(np.abs(difference).max()), float(np.sqrt(np.square(difference).mean()))


@pytest.mark.parametrize("name", INSTALLED)
def test_an_engine_gives_the_answer_of_the_network(
    name: str, package: Path, checkpoint: Checkpoint, tiles: Tiles
) -> None:
    engine = build_engine(package, EngineChoice(name, threads=1))
    found = engine(tiles)
    assert (engine.name, engine.precision, engine.device) == (name, "float32", "cpu")
    assert found.dtype == np.float32
    assert found.shape == (2, 3, *tiles.shape[2:])
    assert found.flags.c_contiguous
    largest, _ = sigmas(inner(checkpoint, found), inner(checkpoint, answer(checkpoint, tiles)))
    assert largest <= 1e-4


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("torchscript", "float32"),
        pytest.param("torchscript", "bfloat16", marks=BFLOAT16),
        ("onnxruntime", "float32"),
        pytest.param("openvino", "float32", marks=NEEDS_OPENVINO),
    ],
)
def test_the_same_tiles_give_the_same_bytes_whatever_ran_before(
    name: str, precision: str, package: Path, tiles: Tiles
) -> None:
    choice = EngineChoice(name, precision, threads=1)
    engine = build_engine(package, choice)
    first = engine(tiles).copy()
    engine(tiles[:1, :, :-4])
    again = [engine(tiles).copy() for _ in range(3)]
    other = build_engine(package, choice)
    other(tiles[:1])
    assert all(np.array_equal(first, found) for found in [*again, other(tiles)])


@NEEDS_OPENVINO
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux where threads may run")
def test_openvino_leaves_it_to_the_system_where_its_threads_run(
    package: Path, tiles: Tiles
) -> None:
    """Else every process would compute on the first cores, and two would be as slow as one."""
    engine = build_engine(package, EngineChoice("openvino", threads=1))
    allowed = set()
    with ThreadPoolExecutor(1) as pool:
        calls = [pool.submit(engine, tiles) for _ in range(10)]
        while not calls[-1].done():
            for thread in Path("/proc/self/task").iterdir():
                with suppress(ProcessLookupError):  # it has ended
                    allowed.add(frozenset(os.sched_getaffinity(int(thread.name))))
    assert allowed == {frozenset(os.sched_getaffinity(0))}


def test_an_engine_keeps_its_number_of_threads_whatever_others_set(
    package: Path, tiles: Tiles
) -> None:
    before = torch.get_num_threads()
    engine = build_engine(package, EngineChoice("torchscript", threads=1))
    torch.set_num_threads(2)  # as numba's parallel loops do
    engine(tiles)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "name",
    ["torchscript", *INSTALLED[2:]],
)
@pytest.mark.parametrize("background", [0.0, 3.0])
@BFLOAT16
def test_bfloat16_leaves_the_local_normalisation_alone(
    name: str, background: float, package: Path, checkpoint: Checkpoint, tiles: Tiles
) -> None:
    # on a bright background the variance is a small difference of large numbers
    tiles = tiles + np.float32(background)
    engine = build_engine(package, EngineChoice(name, "bfloat16", threads=1))
    assert engine.precision == "bfloat16"
    expected = inner(checkpoint, answer(checkpoint, tiles))
    largest, rms = sigmas(inner(checkpoint, engine(tiles)), expected)
    assert 1e-4 < largest < 0.2
    assert rms < LIMITS["bfloat16"]


def test_the_fastest_engine_is_the_one_with_the_shortest_time_that_agrees(package: Path) -> None:
    found = fastest_engine(package, EngineChoice(threads=1))
    tried = {trial.name: trial for trial in found.trials}
    assert set(tried) == set(ENGINES) - {"auto"}
    able = [t for t in found.trials if t.refused is None]
    assert found.name == min(able, key=lambda t: t.seconds or 0).name
    assert tried["torchscript"].largest == 0.0
    assert tried["torchscript"].seconds is not None
    assert 0.0 < (tried["onnxruntime"].largest or 0.0) <= LIMITS["float32"]
    assert "compile" in (tried["compile"].refused or "")  # nobody said that it would pay


class Fake:
    """TorchScript's answer, spoilt, in no time."""

    precision, device = "float32", "cpu"

    def __init__(self, weights: PackageWeights, *choice: Any) -> None:
        self.name = "onnxruntime"
        self._script = weights.torchscript("cpu")

    def __call__(self, tiles: Tiles) -> Tiles:
        with torch.no_grad():
            found: Tiles = self._script(torch.from_numpy(tiles)).numpy()
        found[:, :, found.shape[2] // 2, found.shape[3] // 2] += 0.01
        return found


def test_a_fast_engine_with_one_wrong_pixel_is_not_taken(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seconds_of(engine: engines.Engine, *_: Any, **__: Any) -> float:
        return 0.1 if isinstance(engine, Fake) else 1.0

    monkeypatch.setattr(engine_trials, "seconds_of", seconds_of)
    monkeypatch.setitem(RUNTIMES, "onnxruntime", Fake)
    found = fastest_engine(package, EngineChoice(threads=1))
    (spoilt,) = [t for t in found.trials if t.name == "onnxruntime"]
    assert "sigma from TorchScript" in (spoilt.refused or "")
    assert (spoilt.largest or 0.0) > 1e-4
    assert found.name != "onnxruntime"


def test_torchscript_is_taken_where_there_is_little_to_do(package: Path) -> None:
    found = fastest_engine(package, EngineChoice(threads=1), pixels=1000)
    assert found.name == "torchscript"
    assert {t.refused for t in found.trials if t.name != "torchscript"} == {
        "takes longer to compile than it wins",
        "takes longer to try than it wins",
    }


def test_compile_is_tried_where_the_work_is_long_enough(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def process(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)  # which takes half a minute
        return subprocess.CompletedProcess(command, 1, "", "Traceback\nOSError: no disk")

    monkeypatch.setattr(subprocess, "run", process)
    found = fastest_engine(package, EngineChoice(threads=1), pixels=1e12)
    (failed,) = [t for t in found.trials if t.name == "compile"]
    assert failed.refused == "its trial failed: OSError: no disk"
    found = fastest_engine(package, EngineChoice(threads=1), pixels=1e12, memory_bytes=2**29)
    (barred,) = [t for t in found.trials if t.name == "compile"]
    assert barred.refused == "its compiler takes more memory than is allowed"
    assert len(asked) == 1


def test_a_trial_in_another_process_tells_what_one_in_this_process_does(package: Path) -> None:
    choice = EngineChoice("onnxruntime", threads=1)
    (here,) = [t for t in fastest_engine(package, choice).trials if t.name == "onnxruntime"]
    apart = engine_trials._tried_apart(package, choice, 0.1)
    assert replace(apart, seconds=None) == replace(here, seconds=None)
    assert (apart.seconds or 0.0) > 0.0
    unknown = engine_trials._tried_apart(package.with_name("no.zip"), choice, 0.1)
    assert "no.zip" in (unknown.refused or "")


@pytest.mark.slow
@NEEDS_COMPILER
def test_trying_compile_leaves_nothing_of_it_in_this_process(package: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from zoo_models.prediction.engine_trials import fastest_engine\n"
        "from zoo_models.prediction.engines import EngineChoice\n"
        "found = fastest_engine(Path(sys.argv[1]), EngineChoice(threads=1), pixels=1e12)\n"
        "print([t.refused for t in found.trials if t.name == 'compile'])\n"
        "print('torch._inductor.compile_fx' in sys.modules)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(package)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[None]", "False"]


def test_an_engine_that_is_not_installed_says_how_to_install_it(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "openvino" else real(name, *a)
    )
    with pytest.raises(InputError, match=r"pip install 'spoco-zoo\[openvino\]'"):
        build_engine(package, EngineChoice("openvino"))
    found = fastest_engine(package, EngineChoice(threads=1))
    (missing,) = [t for t in found.trials if t.name == "openvino"]
    assert "not installed" in (missing.refused or "")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "tensorrt"}, "--engine tensorrt: expected one of auto, torchscript"),
        ({"precision": "float16"}, "--precision float16: expected one of float32, bfloat16"),
        ({"threads": 0}, "0 threads"),
        ({"precision": "bfloat16", "device": "mps"}, "mps does not compute in bfloat16"),
    ],
)
def test_an_impossible_choice_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        EngineChoice(**fields)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (EngineChoice("auto"), "auto must be measured first"),
        pytest.param(
            EngineChoice("onnxruntime", "float32", "mps"), "cannot use --device mps", id="mps"
        ),
    ],
)
def test_an_engine_that_cannot_do_it_is_refused(
    package: Path, choice: EngineChoice, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        build_engine(package, choice)


@BFLOAT16
def test_onnxruntime_has_no_bfloat16(package: Path) -> None:
    with pytest.raises(InputError, match="no bfloat16"):
        build_engine(package, EngineChoice("onnxruntime", "bfloat16"))


def test_compile_runs_no_network_source_but_the_installed_one(
    package: Path, tmp_path: Path
) -> None:
    digest = sha256(Path(unet_valid.__file__)).encode()
    other = changed(package, tmp_path / "other.zip", RDF, digest, b"ab" * 32)
    with pytest.raises(InputError, match="another network source"):
        build_engine(other, EngineChoice("compile"))


def test_weights_with_other_bytes_are_refused(package: Path, tmp_path: Path) -> None:
    name = WEIGHTS["onnx"]
    other = changed(package, tmp_path / "other.zip", name, b"embeddings", b"EMBEDDINGS")
    with pytest.raises(InputError, match="ONNX weights cannot be loaded"):
        build_engine(other, EngineChoice("onnxruntime"))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["torchscript", "compile"])
def test_an_engine_gives_the_same_answer_on_a_gpu(
    name: str, package: Path, checkpoint: Checkpoint, tiles: Tiles
) -> None:
    engine = build_engine(package, EngineChoice(name, device="cuda"))
    found = engine(tiles)
    largest, _ = sigmas(inner(checkpoint, found), inner(checkpoint, answer(checkpoint, tiles)))
    assert largest <= 1e-4
    assert np.array_equal(found, engine(tiles))
