"""The certificate says of each consumer what running it says: exact, exact on a grid, or not."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from packager.certificate import Certificate, Trial, Verdict, as_config, rows
from packager.certify import certify, expect_promised, position_rich
from packager.consumers import core, ilastik, jdll
from packager.kinds import KindName, Product, product
from packager.weights import WEIGHTS, write_torchscript
from zoo_models.checkpoint import Checkpoint, ClustererSettings
from zoo_models.errors import ExportError

NAMES = (core.NAME, ilastik.NAME, jdll.NAME)


def certificate(made: Product, checkpoint: Checkpoint, folder: Path) -> Certificate:
    """The certificate of the TorchScript alone: ONNX takes long to write."""
    smallest = [axis.minimum for axis in made.axes]
    example = torch.rand(1, len(made.takes.channels), *smallest)
    write_torchscript(made.graph, example, folder / WEIGHTS["torchscript"])
    taken = position_rich([2 * n for n in smallest], channels=len(made.takes.channels))
    np.save(folder / "test_input.npy", taken[None])
    only = dataclasses.replace(made, formats=("torchscript",))
    return certify(only, folder, checkpoint.normalisation)


def plain(checkpoint: Checkpoint, kind: KindName = "embeddings") -> Product:
    return product(checkpoint, ("grey",), kind=kind)


def redeclared(made: Product, **change: int) -> Product:
    axes = tuple(dataclasses.replace(axis, **change) for axis in made.axes)
    return dataclasses.replace(made, axes=axes)


def with_group_norms(made: Product) -> Product:
    """The same graph, each batch norm replaced by a group norm, which sees the whole tile."""
    for parent in list(made.graph.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.GroupNorm(1, child.num_features))
    made.graph.eval()
    return made


def of(found: Certificate) -> dict[str, Verdict]:
    return {verdict.consumer: verdict for verdict in found.verdicts}


def wrong_sizes(verdict: Verdict, period: int) -> set[bool]:
    """Whether the sizes that are not exact are multiples of the period."""
    return {all(n % period == 0 for n in t.size) for t in verdict.placed if not t.exact}


@pytest.mark.parametrize(
    ("kwargs", "period"),
    [
        ({"levels": 1, "upsampling": "nearest"}, [2, 2]),
        ({"levels": 2}, [4, 4]),
        ({"levels": 3, "convolutions": 1}, [8, 8]),
        ({"levels": 4, "width": 2}, [16, 16]),
        ({"levels": 2, "factor": [2, 4], "kernel": [3, 1]}, [4, 16]),
        ({"levels": 1, "ndim": 3, "factor": [1, 2, 2], "width": 2}, [1, 2, 2]),
    ],
)
def test_the_universal_declaration_is_exact_on_the_grid_in_every_consumer(
    make: Callable[..., Checkpoint], tmp_path: Path, kwargs: dict[str, object], period: list[int]
) -> None:
    checkpoint = make(**kwargs)
    found = certificate(plain(checkpoint), checkpoint, tmp_path)
    assert tuple(of(found)) == NAMES
    twice = [2 * p for p in period]
    grids = {name: list(verdict.grid) for name, verdict in of(found).items()}
    assert grids == {core.NAME: period, ilastik.NAME: twice, jdll.NAME: period}
    for verdict in found.verdicts:
        on, off = verdict.largest(on=True), verdict.largest(on=False)
        assert on is not None
        assert off is not None
        assert on <= 1e-4 < off
    expect_promised(found, plain(checkpoint))


def test_a_size_off_the_grid_is_what_is_wrong_and_nothing_else(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    found = of(certificate(plain(checkpoint), checkpoint, tmp_path))
    assert wrong_sizes(found[core.NAME], 4) == {False}
    assert wrong_sizes(found[jdll.NAME], 4) == {False}
    assert wrong_sizes(found[ilastik.NAME], 8) == {False}
    assert wrong_sizes(found[ilastik.NAME], 4) == {True, False}  # half on it: re-centred by P / 2


@pytest.mark.parametrize(
    ("change", "who"),
    [
        ({"halo": 16}, NAMES),  # less than the network loses
        ({"halo": 21}, NAMES),  # 2 halo leaves the grid
        ({"step": 4}, (ilastik.NAME,)),  # tiles of 52 keep 12, no multiple of 2P
        ({"minimum": 52}, (ilastik.NAME, jdll.NAME)),  # kept 12 off 2P; min no multiple of step
    ],
)
def test_a_wrong_declaration_is_found_out(
    checkpoint: Checkpoint, tmp_path: Path, change: dict[str, int], who: Sequence[str]
) -> None:
    made = redeclared(plain(checkpoint), **change)
    found = certificate(made, checkpoint, tmp_path)
    assert tuple(name for name, v in of(found).items() if not v.grid) == tuple(who)
    with pytest.raises(ExportError, match="Tiles would show") as caught:
        expect_promised(found, made)
    assert [name for name in NAMES if name in str(caught.value)] == list(who)


def test_a_group_norm_is_found_out(checkpoint: Checkpoint, tmp_path: Path) -> None:
    made = with_group_norms(plain(checkpoint))
    found = certificate(made, checkpoint, tmp_path)
    assert {verdict.outcome for verdict in found.verdicts} == {"not exact"}
    with pytest.raises(ExportError, match="standard deviations"):
        expect_promised(found, made)


def test_a_fixed_size_is_certified_for_the_consumer_it_is_made_for(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("packager.kinds.FIXED_TILE", {2: 90})
    made = product(checkpoint, ("grey",), kind="embeddings", target="fiji")
    assert {(a.minimum, a.step, a.halo) for a in made.axes} == {(88, 0, 20)}
    found = certificate(made, checkpoint, tmp_path)
    assert of(found)[jdll.NAME].grid == (4, 4)
    assert max(t.tiles for t in of(found)[jdll.NAME].placed) == 2
    expect_promised(found, made, "fiji")


def test_a_promise_to_one_consumer_is_not_broken_by_another() -> None:
    broken = Verdict(ilastik.NAME, (), (Trial((8, 8), "torchscript", 4, 0.5),))
    kept = Verdict(jdll.NAME, (4, 4), (Trial((8, 8), "torchscript", 4, 0.0),))
    found = Certificate((broken, kept), {})
    made = dataclasses.replace(_any_product(), scripted=False)
    expect_promised(found, made, "fiji")
    for target in ("ilastik", None):
        with pytest.raises(ExportError, match="ilastik on an image of 8x8: differs by"):
            expect_promised(found, made, target)


def test_the_certificate_reads_as_text_and_as_json() -> None:
    trials = (
        Trial((8, 8), "torchscript", 4, 2.34e-6),
        Trial((9, 9), "torchscript", 4, 0.5),
        Trial((2, 2), "torchscript", 0, float("inf"), "refuses: too small"),
    )
    found = Certificate((Verdict("someone", (4, 4), trials),), {"torch": "2"})
    assert rows(found) == [
        ("someone", "exact on sizes that are multiples of 4", "2.3e-06", "5.0e-01")
    ]
    (told,) = json.loads(json.dumps(as_config(found)))["consumers"]
    assert told["sizes"] == [[8, 8], [9, 9], [2, 2]]
    assert told["largest_difference_sigma"] == 2e-6
    assert told["refused"] == ["refuses: too small"]


def test_no_two_places_of_a_test_image_look_alike() -> None:
    image = position_rich((40, 50), channels=1)
    windows = np.lib.stride_tricks.sliding_window_view(image[0], (3, 3)).reshape(-1, 9)
    assert len(np.unique(windows, axis=0)) == len(windows)
    assert image.min() >= 0
    assert image.max() <= 255


def _any_product() -> Product:
    from packager.kinds import LABELS

    return Product(
        "embeddings", nn.Identity(), LABELS, LABELS, (), (), (), ClustererSettings("none")
    )
