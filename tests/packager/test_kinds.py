"""One checkpoint becomes four kinds of package; each is valid, runs, and keeps its promise."""

import dataclasses
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import bioimageio.core
import bioimageio.spec
import numpy as np
import pytest
import torch
from bioimageio.core import Sample, Tensor
from ruyaml import YAML

from packager import weights
from packager.card import Card
from packager.consumers import core, jdll
from packager.export import export
from packager.kinds import KINDS, KindName, Wanted, product
from zoo_models.checkpoint import Checkpoint, ClustererSettings
from zoo_models.errors import InputError, PackageError
from zoo_models.package import Package
from zoo_models.postprocessing import build_clusterer
from zoo_models.prediction.blocks import BlockGrid
from zoo_models.prediction.engine import predict_embeddings

PackageOf = Callable[[KindName], Path]
OTHER_KINDS: tuple[KindName, ...] = ("boundaries", "instances", "clusterer")

SETTINGS: dict[str, Any] = {
    "join": 0.03,
    "merge": 0.1,
    "radius": 0.1,
    "solid": 0.0,
    "min_size": 5,
    "background": [-0.118, -0.454, -0.236],  # the untrained network's answer to the empty parts
}


@pytest.fixture(scope="module")
def knowing(make: Callable[..., Checkpoint]) -> Checkpoint:
    """A checkpoint that knows where the background's embedding is."""
    clusterer = ClustererSettings("basin_merging", SETTINGS)
    return dataclasses.replace(make(levels=1), clusterer=clusterer)


@pytest.fixture(scope="module")
def package_of(
    knowing: Checkpoint, card: Card, tmp_path_factory: pytest.TempPathFactory
) -> PackageOf:
    """A package of a kind, made when first asked for. What `export` checks (validator, zoo's
    tests) has passed."""
    folder = tmp_path_factory.mktemp("kinds")
    short = card.model_copy(update={"title": "Discs"})
    return cache(lambda kind: export(knowing, short, folder / f"{kind}.zip", Wanted(kind)).package)


def description(package: Path) -> dict[str, Any]:
    with zipfile.ZipFile(package) as archive:
        content: dict[str, Any] = YAML(typ="safe").load(archive.read("rdf.yaml"))
    return content


def by_core(package: Path, array: np.ndarray, name: str, result: str) -> np.ndarray:
    """What bioimageio.core predicts in one pass: (1, C, Y, X) -> (1, D, Y, X)."""
    members: Any = {name: Tensor.from_numpy(array, dims=("batch", "channel", "y", "x"))}
    with zipfile.ZipFile(package) as archive:
        model = bioimageio.spec.load_model_description(archive, format_version="latest")
        with bioimageio.core.create_prediction_pipeline(model, devices=["cpu"]) as pipeline:
            sample = Sample(members=members, stat={}, id="test")
            answer = pipeline.predict_sample_without_blocking(sample)
    found: np.ndarray = answer.members[result].data.to_numpy()
    return found


def embedded(checkpoint: Checkpoint, raw: np.ndarray) -> np.ndarray:
    grid = BlockGrid.covering(raw.shape[1:], checkpoint.geometry, tile_limit=200)
    normalised = checkpoint.normalisation.apply(raw)
    network = checkpoint.network()
    return predict_embeddings(network, normalised, grid, embedding_dim=checkpoint.embedding_dim)


@pytest.fixture(scope="module")
def raw(card: Card) -> np.ndarray:
    """The sample image at a size off every grid."""
    import tifffile

    image: np.ndarray = tifffile.imread(card.sample.file)[None, :61, :83].astype(np.float32)
    return image


def partition(labels: np.ndarray) -> np.ndarray:
    """Labels renumbered by first appearance, so that numberings can be compared; 0 stays 0."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(np.where(np.unique(labels) == 0, -1, first)))
    renumbered: np.ndarray = (order + (labels.min() > 0))[inverse].reshape(labels.shape)
    return renumbered


def test_instances_from_the_graph_are_those_that_predict_finds(
    package_of: PackageOf, knowing: Checkpoint, raw: np.ndarray
) -> None:
    found = by_core(package_of("instances"), raw[None], "input", "labels")[0, 0]
    expected = build_clusterer(knowing.clusterer)(embedded(knowing, raw))
    assert expected.max() > 3
    np.testing.assert_array_equal(partition(found.astype(int)), partition(expected))


def test_the_clusterer_is_the_second_step_after_embeddings(
    package_of: PackageOf, knowing: Checkpoint, raw: np.ndarray
) -> None:
    embeddings = embedded(knowing, raw)
    found = by_core(package_of("clusterer"), embeddings[None], "embeddings", "labels")[0, 0]
    expected = build_clusterer(knowing.clusterer)(embeddings)
    np.testing.assert_array_equal(partition(found.astype(int)), partition(expected))


def test_labels_are_promised_in_one_pass_for_every_size(package_of: PackageOf) -> None:
    for kind in ("instances", "clusterer"):
        content = description(package_of(kind))
        space = [a for a in content["inputs"][0]["axes"] if a["type"] == "space"]
        assert [a["size"] for a in space] == 2 * [{"min": 1, "step": 1}]
        assert "halo" not in str(content["outputs"])
        told = content["config"]["spoco_zoo"]["tiling_certificate"]["consumers"]
        outcomes = {c["consumer"]: c["outcome"] for c in told}
        assert outcomes[core.NAME] == outcomes[jdll.NAME] == "exact"
        assert outcomes["ilastik"] == "not exact"  # it cuts larger images, whatever is declared


def test_boundaries_carry_the_stencil_in_their_halo(
    package_of: PackageOf, knowing: Checkpoint
) -> None:
    content = description(package_of("boundaries"))
    halos = [a["halo"] for a in content["outputs"][0]["axes"] if a["type"] == "space"]
    assert halos == [h + 2 for h in knowing.geometry.halo]
    told = content["config"]["spoco_zoo"]["tiling_certificate"]["consumers"]
    assert [c["grid"] for c in told] == [[2, 2], [4, 4], [2, 2]]


def test_what_has_no_source_of_its_own_ships_no_state_dict(
    package_of: PackageOf,
) -> None:
    formats = {kind: set(description(package_of(kind))["weights"]) for kind in OTHER_KINDS}
    assert formats == {
        "boundaries": {"torchscript", "onnx"},
        "instances": {"torchscript"},
        "clusterer": {"torchscript"},
    }


def test_predict_says_which_kind_it_takes(package_of: PackageOf) -> None:
    with pytest.raises(PackageError, match=r"kind 'boundaries'.*kind 'embeddings'"):
        Package.load(package_of("boundaries"))


def test_every_consumer_gets_what_serves_it_best(knowing: Checkpoint) -> None:
    chosen = {t: product(knowing, ("grey",), target=t).kind for t in ("ilastik", "fiji", "core")}
    assert chosen == {"ilastik": "boundaries", "fiji": "instances", "core": "embeddings"}
    assert product(knowing, ("grey",)).kind == "embeddings"
    fixed = product(knowing, ("grey",), kind="boundaries", target="fiji").axes[0]
    assert fixed.step == 0
    assert 1000 < fixed.minimum <= 1024


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_takes_a_volume(make: Callable[..., Checkpoint], kind: KindName) -> None:
    settings = {**SETTINGS, "min_size": 3}
    volume = make(ndim=3, levels=1, factor=[1, 2, 2], width=2, embedding_dim=3)
    volume = dataclasses.replace(volume, clusterer=ClustererSettings("basin_merging", settings))
    made = product(volume, ("grey",), kind=kind)
    size = [max(axis.minimum, 9) for axis in made.axes]
    with torch.no_grad():
        answer = made.graph(torch.rand(1, len(made.takes.channels), *size))
    assert answer.shape == (1, len(made.gives.channels), *size)


def test_a_scripted_graph_in_training_mode_is_refused(knowing: Checkpoint, tmp_path: Path) -> None:
    graph = product(knowing, ("grey",), kind="instances").graph.train()
    with pytest.raises(Exception, match="training mode"):
        weights.write_scripted(graph, tmp_path / "x.pt")


def test_a_title_too_long_for_its_kind_is_refused_at_once(
    knowing: Checkpoint, card: Card, tmp_path: Path
) -> None:
    long = card.model_copy(update={"title": "x" * 60})
    with pytest.raises(InputError, match=r"72 characters.*64"):
        export(knowing, long, tmp_path / "x.zip", Wanted("instances"))
    assert not list(tmp_path.iterdir())
