"""A same-padded network in a package: its halo hides its padding, and its group norm is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from packager import export as exporting
from packager.card import Card
from packager.documents import readme
from packager.export import ExportReport, export
from packager.graphs.boundaries import boundaries_graph
from packager.kinds import Product, Wanted, product
from tests.packager.conftest import disc_image, make_checkpoint, make_subject, randomise_statistics
from tests.packager.test_export import description
from zoo_models.checkpoint import Checkpoint, ClustererSettings, build_network
from zoo_models.errors import ExportError
from zoo_models.package import Package
from zoo_models.prediction.blocks import BlockGrid
from zoo_models.prediction.engine import predict_embeddings

KWARGS = {
    "ndim": 2, "in_channels": 1, "embedding_dim": 3, "width": 8, "max_width": 8, "levels": 2,
    "factor": 2, "kernel": 3,
}  # fmt: skip


def same_padded(norm: str = "batch", **kwargs: Any) -> Checkpoint:
    """Random weights and statistics; the background of its images lies at the origin."""
    torch.manual_seed(0)
    arguments = {**KWARGS, "norm": norm, **kwargs}
    network = build_network("unet_same", arguments)
    randomise_statistics(network)
    settings = ClustererSettings("basin_merging", {"min_size": 5, "background": [0.0, 0.0, 0.0]})
    return dataclasses.replace(
        make_checkpoint(),
        architecture="unet_same",
        kwargs=arguments,
        weights=network.state_dict(),
        clusterer=settings,
    )


@pytest.fixture(scope="module")
def report(card: Card, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    return export(same_padded(), card, tmp_path_factory.mktemp("same") / "same.zip")


def test_the_package_declares_the_halo_that_hides_the_padding(report: ExportReport) -> None:
    """Period 4, radius 22: the halo is 24, where that of a valid network would be 20."""
    content = description(report.package)
    assert [a["halo"] for a in content["outputs"][0]["axes"][2:]] == [24, 24]
    assert [a["size"] for a in content["inputs"][0]["axes"][2:]] == [{"min": 56, "step": 8}] * 2
    architecture = content["weights"]["pytorch_state_dict"]["architecture"]
    assert (architecture["source"], architecture["callable"]) == ("unet_same.py", "UNetSame")


def test_its_certificate_is_exact_in_every_consumer_and_every_format_agrees(
    report: ExportReport,
) -> None:
    assert [v.grid for v in report.certificate.verdicts] == [(4, 4), (8, 8), (4, 4)]
    assert report.differences.keys() == {"torchscript", "onnx"}
    assert max(report.differences.values()) < 1e-5


def test_its_package_predicts_in_small_tiles_what_it_predicts_in_large_ones(
    report: ExportReport,
) -> None:
    package = Package.load(report.package)
    image = package.normalisation.apply(disc_image((123, 170))[None].astype(np.float32))
    answers = [
        predict_embeddings(
            package.network,
            image,
            BlockGrid.covering((123, 170), package.geometry, tile_limit=limit),
            embedding_dim=3,
        )
        for limit in (1, 80, 1000)
    ]
    for other in answers[1:]:
        assert np.abs(other - answers[0]).max() <= 1e-4 * answers[0].std()


def test_its_readme_tells_where_the_outermost_pixels_come_from(card: Card) -> None:
    text = readme(make_subject(same_padded(), card))
    assert "computed from the padding around the tile" in text
    assert "reach of the network" in text
    assert "hold zeros" not in text


@pytest.mark.parametrize("kwargs", [{}, {"levels": 1, "factor": 3, "kernel": 5}])
def test_boundaries_do_not_depend_on_the_tile(kwargs: dict[str, Any]) -> None:
    checkpoint = same_padded(**kwargs)
    (period, _) = checkpoint.geometry.period
    image = torch.rand(1, 1, *[40 * period] * 2)
    with torch.no_grad():
        scale = 4 / checkpoint.network()(image).std()  # as far apart as trained embeddings are
    weights = {n: t * scale if "head" in n else t for n, t in checkpoint.weights.items()}
    graph, geometry = boundaries_graph(dataclasses.replace(checkpoint, weights=weights))
    (halo, _) = geometry.halo
    inner = (..., slice(halo, -halo), slice(halo, -halo))
    with torch.no_grad():
        whole = graph(image)
        moved = graph(image[..., 3 * period :, 2 * period :])
    assert not whole[0, :, 0].any()
    assert whole.std() > 0.01
    expected = whole[inner][..., 3 * period :, 2 * period :]
    np.testing.assert_allclose(moved[inner], expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["embeddings", "instances"])
def test_a_group_norm_is_refused_with_the_reason_and_what_to_do(
    kind: Any, card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_onnx(*arguments: Any, **options: Any) -> Product:  # which takes long to write
        made = product(*arguments, **options)
        return dataclasses.replace(made, formats=tuple(f for f in made.formats if f != "onnx"))

    monkeypatch.setattr(exporting, "make_product", without_onnx)
    with pytest.raises(ExportError, match=r"group.* norm.*train with norm 'batch' or 'none'") as it:
        export(same_padded("group"), card, tmp_path / "group.zip", Wanted(kind))
    assert "\n" not in str(it.value)
    assert not list(tmp_path.iterdir())
