"""The command line as a user runs it, and one package that was really trained and exported."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from packager import cli
from tests.packager.conftest import CARD
from tests.training.conftest import CONFIG, discs
from zoo_models.checkpoint import ClustererSettings, Normalisation
from zoo_models.geometry import AxisTiling, TileGeometry
from zoo_models.package import Package
from zoo_models.postprocessing import CLUSTERERS, build_clusterer
from zoo_models.prediction.clustering import AS_TRAINED, ClustererOptions, EmbeddingSpace
from zoo_models.prediction.engines import EngineChoice

STEPS = {"max_steps = 4": "max_steps = 120", "epoch_steps = 2": "epoch_steps = 60"}
"""Enough for a tiny network to find some discs; about two seconds."""

FASTER = """
[optimiser]
lr = 0.02

[augmentation]
affine = 0
elastic = 0
gain = [1, 1]
gamma = [1, 1]
offset = 0
noise = 0
blur = 0
"""


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code, and the text on both channels."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that a refused command says, and nothing else."""
        assert self.code == 2, (self.code, self.out, self.err)
        assert self.out == ""
        line = self.err.removesuffix("\n")
        assert "\n" not in line, self.err
        assert line.startswith("error: "), line
        return line.removeprefix("error: ")


def run(*arguments: object) -> Outcome:
    """`spoco-zoo ARGUMENTS` in this process, through the console script's own entry."""
    out, err = io.StringIO(), io.StringIO()
    argv, hook = sys.argv, sys.excepthook
    sys.argv = ["spoco-zoo", *map(str, arguments)]
    code: Any = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as exit_:
        code = exit_.code or 0
    finally:
        sys.argv, sys.excepthook = argv, hook
    return Outcome(code, out.getvalue(), err.getvalue())


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under a folder: to see that a refused command changed nothing."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"folder"
        for path in sorted(folder.rglob("*"))
    }


def write_data(folder: Path, splits: dict[str, list[str]]) -> Path:
    """A data folder of discs with images/, labels/ and splits.json."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for seed, name in enumerate(name for names in splits.values() for name in names):
        image, labels = discs((48, 64), seed)
        tifffile.imwrite(folder / "images" / f"{name}.tif", image)
        tifffile.imwrite(folder / "labels" / f"{name}.tif", labels)
    (folder / "splits.json").write_text(json.dumps(splits))
    return folder


@dataclass(frozen=True)
class Chain:
    """What `train` and `export` made of a data folder, and what they said."""

    folder: Path
    data: Path
    config: Path
    checkpoint: Path
    package: Path
    train: Outcome
    export: Outcome


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Train on discs, then export with the card beside the checkpoint; once for all tests."""
    folder = tmp_path_factory.mktemp("chain")
    data = write_data(folder / "data", {"train": ["a", "b"], "val": ["c"], "test": ["d", "e"]})
    config = folder / "config.toml"
    settings = CONFIG
    for few, more in STEPS.items():
        settings = settings.replace(few, more)
    config.write_text(settings + FASTER)
    run_folder, package = folder / "run", folder / "discs.zip"
    trained = run("train", config, "-o", run_folder, "--threads", 1)
    tifffile.imwrite(run_folder / "sample.tif", discs((96, 128), 9)[0])
    (run_folder / "card.toml").write_text(CARD)
    checkpoint = run_folder / "checkpoint.safetensors"
    exported = run("export", checkpoint, "-o", package)
    return Chain(folder, data, config, checkpoint, package, trained, exported)


@pytest.fixture(scope="session")
def package(chain: Chain) -> Path:
    assert chain.export.code == 0, chain.export.err
    return chain.package


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A fresh data folder, for tests that break something in it."""
    return write_data(tmp_path / "data", {"train": ["a"], "val": ["b"]})


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A good image for the package."""
    path = tmp_path / "good.tif"
    tifffile.imwrite(path, discs((48, 64), 20)[0])
    return path


class Brightness:
    """An engine without a network."""

    name, precision, device = "torchscript", "float32", "cpu"

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        return np.concatenate([tiles, -tiles], axis=1)


@pytest.fixture
def volumes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any package loads as one for 3D stacks, whose embedding of a voxel is its brightness."""

    def load(
        source: Path, *, device: str = "cpu", options: ClustererOptions = AS_TRAINED
    ) -> Package:
        own = ClustererSettings(next(iter(CLUSTERERS)), {"background": [0.0, 0.0]})
        space = options.applied(EmbeddingSpace(clusterer=own, dimensions=2, axes="zyx"))
        return Package(
            source=source,
            geometry=TileGeometry("zyx", (AxisTiling(24, 4, 2, 4, 4),) * 3),
            in_channels=1,
            embedding_dim=2,
            normalisation=Normalisation(gain=0.1),
            network=lambda x: torch.cat([x, -x], dim=1),
            space=space,
            clusterer=build_clusterer(space.clusterer),
        )

    def brightness(source: Path, choice: EngineChoice) -> Brightness:
        return Brightness()

    monkeypatch.setattr(Package, "load", load)
    monkeypatch.setattr("zoo_models.prediction.predict.build_engine", brightness)


GREY = np.full((48, 64), 80, np.uint8)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands run: also relative paths, such as the default run folder, land here."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(*arguments: object, unchanged: Path) -> str:
    """The line of a refused command, after a look at what it left in `unchanged`."""
    before = contents(unchanged)
    line = run(*arguments).error
    assert contents(unchanged) == before
    assert 20 < len(line) < 600
    return line


def assert_says(line: str, *words: str) -> None:
    for word in words:
        assert word in line, f"{word!r} is not in: {line}"


def nan(path: Path) -> None:
    pixels = GREY.astype(np.float32)
    pixels[3, 4] = np.nan
    tifffile.imwrite(path, pixels)


def infinite(path: Path) -> None:
    pixels = GREY.astype(np.float32)
    pixels[3, 4:6] = np.inf
    tifffile.imwrite(path, pixels)


def truncated(path: Path) -> None:
    tifffile.imwrite(path, np.random.default_rng(0).integers(0, 255, (200, 200), np.uint8))
    path.write_bytes(path.read_bytes()[:20000])


def text(path: Path) -> None:
    path.write_text("no image")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def colour(path: Path) -> None:
    draw = np.random.default_rng(0)
    tifffile.imwrite(path, draw.integers(0, 255, (48, 64, 3), np.uint8), photometric="rgb")


def stack(path: Path) -> None:
    tifffile.imwrite(path, np.stack([GREY] * 5), metadata={"axes": "ZYX"})


def complex_numbers(path: Path) -> None:
    tifffile.imwrite(path, GREY.astype(np.complex64))


BAD_IMAGES: dict[Callable[[Path], None], tuple[str, ...]] = {
    nan: ("1 NaN", "expected finite", "replace"),
    infinite: ("2 infinite", "expected finite", "replace"),
    truncated: ("cannot be read", "expected a complete", "again"),
    text: ("cannot be read", "expected a complete TIF", "again"),
    empty: ("cannot be read", "expected a complete", "again"),
    stack: ("3D stack", "expected a 2D image", "3D network"),
    colour: ("3 channel(s) (colour)", "expected 1", "--channel 0"),
    complex_numbers: ("complex64", "expected", "convert"),
}
bad_images = pytest.mark.parametrize("spoil", BAD_IMAGES, ids=lambda spoil: spoil.__name__)
bad_for_predict = pytest.mark.parametrize(  # which takes the planes of a stack one by one
    "spoil", [spoil for spoil in BAD_IMAGES if spoil is not stack], ids=lambda spoil: spoil.__name__
)
