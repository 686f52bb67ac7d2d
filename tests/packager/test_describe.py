"""The description says the one geometry that places tiles right in every consumer."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import bioimageio.spec
import pytest
from ruyaml import YAML

from packager.card import Card
from packager.describe import Digests, describe
from tests.packager.conftest import make_subject
from zoo_models.checkpoint import Checkpoint, Normalisation

DIGESTS = Digests(defaultdict(lambda: "0" * 64), "1" * 64)


def described(checkpoint: Checkpoint, card: Card) -> dict[str, Any]:
    content: dict[str, Any] = YAML(typ="safe").load(
        describe(make_subject(checkpoint, card), DIGESTS)
    )
    return content


def space_axes(tensor: dict[str, Any]) -> list[dict[str, Any]]:
    return [axis for axis in tensor["axes"] if axis["type"] == "space"]


def keys(node: Any) -> Iterator[str]:
    """Yield every key of nested mappings and lists."""
    if isinstance(node, dict):
        yield from node
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from keys(child)


# Measured with the consumers themselves: exact tiling needs halo 6P, step 2P, min 14P.
@pytest.mark.parametrize(
    ("levels", "halo", "step", "minimum"), [(3, 48, 16, 112), (4, 96, 32, 224)]
)
def test_a_plain_network_declares_the_universal_numbers(
    card: Card, make: Callable[..., Checkpoint], levels: int, halo: int, step: int, minimum: int
) -> None:
    content = described(make(levels=levels), card)
    assert [a["size"] for a in space_axes(content["inputs"][0])] == 2 * [
        {"min": minimum, "step": step}
    ]
    assert [a["halo"] for a in space_axes(content["outputs"][0])] == [halo, halo]


def test_an_anisotropic_volume_declares_one_range_for_all_axes(
    card: Card, make: Callable[..., Checkpoint]
) -> None:
    content = described(make(ndim=3, levels=1, factor=[1, 2, 2]), card)
    sizes = [a["size"] for a in space_axes(content["inputs"][0])]
    halos = [a["halo"] for a in space_axes(content["outputs"][0])]
    assert [a["id"] for a in content["inputs"][0]["axes"]] == ["batch", "channel", "z", "y", "x"]
    assert sizes[0] == sizes[1] == sizes[2]
    assert halos[0] < halos[1] == halos[2]


def test_the_output_has_the_size_of_the_input_and_a_halo(
    card: Card, checkpoint: Checkpoint
) -> None:
    for axis in space_axes(described(checkpoint, card)["outputs"][0]):
        assert axis["size"] == {"tensor_id": "input", "axis_id": axis["id"]}
        assert axis.keys() == {"type", "id", "size", "halo"}


def test_nothing_is_written_that_some_consumer_refuses(card: Card, checkpoint: Checkpoint) -> None:
    content = described(checkpoint, card)
    assert content["format_version"] == "0.5.9"
    assert content["documentation"] == "README.md"
    assert content["covers"] == ["cover.png"]
    assert content["config"].keys() == {"spoco_zoo"}
    tensors = content["inputs"] + content["outputs"]
    assert len(tensors) == 2
    # `pad` came after 0.5.9; JDLL's canvas is wrong with `scale`, ilastik's tiles with `offset`.
    assert {"pad", "scale", "concatenable"}.isdisjoint(keys(tensors))
    assert all("offset" not in axis["size"] for t in tensors for axis in space_axes(t))
    assert [t["data"] for t in tensors] == 2 * [{"type": "float32"}]
    assert "postprocessing" not in content["outputs"][0]


def test_normalisation_is_fixed_and_left_out_when_it_changes_nothing(
    card: Card, checkpoint: Checkpoint, make: Callable[..., Checkpoint]
) -> None:
    steps = described(checkpoint, card)["inputs"][0]["preprocessing"]
    assert steps == [{"id": "scale_linear", "kwargs": {"gain": 1 / 255, "offset": -0.25}}]
    plain = dataclasses.replace(checkpoint, normalisation=Normalisation())
    assert described(plain, card)["inputs"][0]["preprocessing"] == []


def test_config_holds_what_prediction_needs(card: Card, checkpoint: Checkpoint) -> None:
    config = described(checkpoint, card)["config"]["spoco_zoo"]
    assert config["geometry"] == {
        "halo": [20, 20],
        "step": [8, 8],
        "min": [48, 48],
        "period": [4, 4],
        "shrink": [20, 20],
    }
    assert config["clusterer"]["source"] == "basin_merging.py"
    assert config["clusterer"]["callable"] == "BasinMerging"
    assert config["clusterer"]["settings"] == {"join": 0.4, "min_size": 5}
    assert config["embedding"] == {"delta_v": 0.5, "delta_d": 2.0}
    assert config["checkpoint_sha256"] == "1" * 64
    assert config["provenance"] == {"seed": 0, "data": "discs"}
    assert config["voxel_size_um"] is None
    assert config["versions"]["torch"]


def test_a_data_set_of_the_collection_is_linked(card: Card, checkpoint: Checkpoint) -> None:
    data = card.training_data.model_copy(update={"bioimageio_id": "somebody/discs"})
    linked = card.model_copy(update={"training_data": data})
    assert described(checkpoint, linked)["training_data"] == {"id": "somebody/discs"}
    assert "training_data" not in described(checkpoint, card)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_description_is_valid_without_a_warning(
    card: Card, make: Callable[..., Checkpoint], ndim: int
) -> None:
    content = described(make(ndim=ndim, levels=1), card)
    strict = bioimageio.spec.ValidationContext(
        warning_level=20, perform_io_checks=False, log_warnings=False
    )
    result = bioimageio.spec.build_description(content, context=strict)
    assert result.validation_summary.status == "valid-format", result.validation_summary


def test_the_same_checkpoint_is_described_in_the_same_bytes(
    card: Card, checkpoint: Checkpoint
) -> None:
    texts = [describe(make_subject(checkpoint, card), DIGESTS) for _ in range(2)]
    assert texts[0] == texts[1]
