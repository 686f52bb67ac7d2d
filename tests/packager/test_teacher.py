"""A package with its teacher: twice the channels, tiled as one, clustered where both agree."""

import dataclasses
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from ruyaml import YAML
from typer.testing import CliRunner

from packager.card import Card
from packager.certify import certify, expect_promised
from packager.cli import app
from packager.export import ExportReport, _write_graph, export
from packager.kinds import KindName, Target, Wanted, product
from zoo_models.checkpoint import Checkpoint, ClustererSettings
from zoo_models.errors import ExportError, InputError
from zoo_models.package import Package
from zoo_models.postprocessing.basin_merging import BasinMerging
from zoo_models.postprocessing.consistency import ConsistencyClustering

WITH_TEACHER = Wanted(teacher=True)
CONTRAST = 20.0
"""The networks' head is multiplied, so that discs and background are farther than delta_v apart."""


def taught(make: Callable[..., Checkpoint]) -> Checkpoint:
    """A network whose teacher is much the same, but sees some of the objects otherwise."""
    plain = make(levels=1)
    weights = {k: v * CONTRAST if "head" in k else v for k, v in plain.weights.items()}
    torch.manual_seed(0)
    teacher = {
        k: v + 0.15 * v.std() * torch.randn_like(v) if v.is_floating_point() and v.ndim > 1 else v
        for k, v in weights.items()
    }
    settings = {"min_size": 5, "join": 0.4}
    return dataclasses.replace(
        plain,
        weights=weights,
        teacher=teacher,
        clusterer=ClustererSettings("basin_merging", settings),
    )


@pytest.fixture(scope="module")
def checkpoint(make: Callable[..., Checkpoint]) -> Checkpoint:
    return taught(make)


@pytest.fixture(scope="module")
def report(
    checkpoint: Checkpoint, card: Card, tmp_path_factory: pytest.TempPathFactory
) -> ExportReport:
    """What `export` checks (validator, zoo's tests) has passed."""
    out = tmp_path_factory.mktemp("teacher") / "taught.zip"
    return export(checkpoint, card, out, WITH_TEACHER)


def description(package: Path) -> dict[str, Any]:
    with zipfile.ZipFile(package) as archive:
        content: dict[str, Any] = YAML(typ="safe").load(archive.read("rdf.yaml"))
    return content


def by_both(checkpoint: Checkpoint, raw: np.ndarray) -> np.ndarray:
    """(2 D, Y, X): one pass of the valid part of each network over the mirrored image c(z)yx."""
    halo, shrink = checkpoint.geometry.halo[0], checkpoint.geometry.shrink[0]
    around = np.pad(raw, ((0, 0), (halo, halo), (halo, halo)), mode="symmetric")
    image = torch.from_numpy(checkpoint.normalisation.apply(around)[None])
    inner = slice(halo - shrink, -(halo - shrink) or None)
    answers = []
    with torch.no_grad():
        for network in (checkpoint.network(), checkpoint.teacher_network()):
            whole: np.ndarray = network.valid(image).numpy()[0]  # type: ignore[operator]
            answers.append(whole[:, inner, inner])
    return np.concatenate(answers)


def test_the_package_names_the_channels_of_both_and_clusters_by_consistency(
    report: ExportReport, checkpoint: Checkpoint
) -> None:
    content = description(report.package)
    channel = content["outputs"][0]["axes"][1]
    assert channel["channel_names"] == [
        "embedding_0", "embedding_1", "embedding_2", "teacher_0", "teacher_1", "teacher_2",
    ]  # fmt: skip
    assert set(content["weights"]) == {"torchscript", "onnx"}  # one file rebuilds no two networks
    assert [a["source"] for a in content["attachments"]] == ["consistency.py"]
    config = content["config"]["spoco_zoo"]
    assert config["kind"] == "embeddings"
    assert config["clusterer"]["callable"] == "ConsistencyClustering"
    assert config["clusterer"]["settings"] == {"delta_v": 0.5, "delta_d": 2.0, "min_size": 5}
    with zipfile.ZipFile(report.package) as archive:
        assert "the embedding by the teacher" in archive.read("README.md").decode()
    assert tuple(config["geometry"]["halo"]) == checkpoint.geometry.halo


def test_our_reader_knows_which_channels_are_the_networks(report: ExportReport) -> None:
    package = Package.load(report.package)
    assert (package.embedding_dim, package.space.dimensions) == (6, 3)
    assert isinstance(package.clusterer, ConsistencyClustering)
    assert package.clusterer.min_size == 5


def test_predict_keeps_the_instances_that_both_networks_see(
    report: ExportReport, checkpoint: Checkpoint, card: Card, tmp_path: Path
) -> None:
    raw = tifffile.imread(card.sample.file)[:62, :84]  # multiples of the period
    tifffile.imwrite(tmp_path / "discs.tif", raw)
    command = ["predict", str(report.package), str(tmp_path / "discs.tif"), "-o", str(tmp_path)]
    done = CliRunner().invoke(app, [*command, "--tile", "40"])
    assert done.exit_code == 0, done.output
    found = tifffile.imread(tmp_path / "discs_labels.ome.tif")
    both = by_both(checkpoint, raw[None].astype(np.float32))
    expected = ConsistencyClustering(min_size=5)(both)
    assert expected.max() > 2
    np.testing.assert_array_equal(found, expected)
    alone = ConsistencyClustering(min_size=5)(np.concatenate([both[:3], both[:3]]))
    assert alone.max() > expected.max()  # the teacher has a say


def test_another_method_gets_the_networks_channels_alone(
    report: ExportReport, checkpoint: Checkpoint, card: Card, tmp_path: Path
) -> None:
    raw = tifffile.imread(card.sample.file)[:62, :84]
    tifffile.imwrite(tmp_path / "discs.tif", raw)
    command = ["predict", str(report.package), str(tmp_path / "discs.tif"), "-o", str(tmp_path)]
    done = CliRunner().invoke(app, [*command, "--method", "basin_merging"])
    assert done.exit_code == 0, done.output
    both = by_both(checkpoint, raw[None].astype(np.float32))
    count = int(BasinMerging(min_size=5)(both[:3]).max())
    assert f"{count} instances" in done.output


@pytest.mark.parametrize("half", ["network", "teacher"])
def test_the_certificate_covers_both_halves(
    checkpoint: Checkpoint, card: Card, tmp_path: Path, half: str
) -> None:
    """A fault in either network, here one that looks farther than its halo, is found out."""
    made = dataclasses.replace(
        product(checkpoint, ("grey",), teacher=True), formats=("torchscript",)
    )
    faulty = getattr(made.graph, half)
    far = torch.nn.AvgPool2d(9, stride=1, padding=4)
    setattr(made.graph, half, torch.nn.Sequential(faulty, far).eval())
    _write_graph(checkpoint, card, made, tmp_path)
    found = certify(made, tmp_path, checkpoint.normalisation)
    with pytest.raises(ExportError, match="Tiles would show"):
        expect_promised(found, made)


def test_the_certificate_of_the_package_promises_every_consumer(report: ExportReport) -> None:
    assert [verdict.grid for verdict in report.certificate.verdicts] == [(2, 2), (4, 4), (2, 2)]


@pytest.mark.parametrize(
    ("kind", "target", "named"),
    [
        ("boundaries", None, "boundaries"),
        ("instances", None, "instances"),
        ("clusterer", None, "clusterer"),
        (None, "ilastik", "boundaries"),
        (None, "fiji", "instances"),
    ],
)
def test_other_kinds_carry_no_teacher(
    checkpoint: Checkpoint,
    card: Card,
    tmp_path: Path,
    kind: KindName | None,
    target: Target | None,
    named: str,
) -> None:
    with pytest.raises(InputError, match=f"kind '{named}' with a teacher.*leave --teacher out"):
        export(checkpoint, card, tmp_path / "x.zip", Wanted(kind, target, teacher=True))
    assert not list(tmp_path.iterdir())


def test_embeddings_with_a_teacher_are_made_for_one_consumer_too(checkpoint: Checkpoint) -> None:
    made = product(checkpoint, ("grey",), kind="embeddings", target="fiji", teacher=True)
    assert made.axes[0].step == 0
    assert len(made.gives.channels) == 6


def test_the_command_says_how_to_get_a_teacher(
    checkpoint: Checkpoint, card_path: Path, tmp_path: Path
) -> None:
    dataclasses.replace(checkpoint, teacher=None).save(tmp_path / "alone.safetensors")
    command = ["export", str(tmp_path / "alone.safetensors"), "-o", str(tmp_path / "x.zip")]
    done = CliRunner().invoke(app, [*command, "--card", str(card_path), "--teacher"])
    assert isinstance(done.exception, ExportError)
    assert "keep = true in [teacher]" in str(done.exception)
    assert [p.name for p in tmp_path.iterdir()] == ["alone.safetensors"]


def test_without_the_flag_a_teacher_changes_nothing(checkpoint: Checkpoint) -> None:
    made = product(checkpoint, ("grey",))
    assert not made.with_teacher
    assert made.clusterer == checkpoint.clusterer
    assert len(made.gives.channels) == 3


def test_a_volume_carries_its_teacher_too(make: Callable[..., Checkpoint]) -> None:
    volume = make(ndim=3, levels=1, factor=[1, 2, 2], width=2, embedding_dim=3)
    volume = dataclasses.replace(volume, teacher={k: v + 1 for k, v in volume.weights.items()})
    made = product(volume, ("grey",), teacher=True)
    image = torch.rand(1, 1, *(axis.minimum for axis in made.axes))
    with torch.no_grad():
        answer = made.graph(image)
        expected = torch.cat([volume.network()(image), volume.teacher_network()(image)], dim=1)
    assert torch.equal(answer, expected)
    assert answer.shape[1] == 6
