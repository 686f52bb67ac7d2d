"""Voxel sizes from the metadata of TIFF files, in micrometres or unknown."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from zoo_models.prediction.images import read_image
from zoo_models.prediction.voxel_size import imagej_voxel_size, ome_voxel_size


def test_voxel_sizes_of_ome_files_are_in_micrometres(tmp_path: Path) -> None:
    sizes = {"PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5}
    metadata = {"axes": "ZYX", **sizes, "PhysicalSizeZ": 0.002, "PhysicalSizeZUnit": "mm"}
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((5, 64, 48), np.uint8), metadata=metadata)
    assert read_image(tmp_path / "a.ome.tif").voxel_size_um == pytest.approx((2, 0.5, 0.25))


@pytest.mark.parametrize("unit", ["um", "micron", "\\u00B5m"])
def test_voxel_sizes_of_imagej_files_are_in_micrometres(tmp_path: Path, unit: str) -> None:
    metadata = {"axes": "ZYX", "spacing": 1.5, "unit": unit}
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.zeros((5, 64, 48), np.uint8),
        imagej=True,
        resolution=(4, 2),
        metadata=metadata,
    )
    assert read_image(tmp_path / "a.tif").voxel_size_um == pytest.approx((1.5, 0.5, 0.25))


@pytest.mark.parametrize(
    "metadata", [{"PhysicalSizeX": 0.5}, {"PhysicalSizeX": 1, "PhysicalSizeY": 0}]
)
def test_a_voxel_size_that_is_not_wholly_known_is_unknown(
    tmp_path: Path, metadata: dict[str, float]
) -> None:
    tifffile.imwrite(
        tmp_path / "a.ome.tif", np.zeros((64, 48), np.uint8), metadata={"axes": "YX", **metadata}
    )
    assert read_image(tmp_path / "a.ome.tif").voxel_size_um is None


def test_metadata_that_makes_no_sense_leaves_the_voxel_size_unknown() -> None:
    assert ome_voxel_size("<OME><Pixels") == {}
    assert ome_voxel_size("<OME/>") == {}
    assert ome_voxel_size('<OME><Pixels PhysicalSizeX="1" PhysicalSizeXUnit="pixel"/></OME>') == {}
    assert imagej_voxel_size({"unit": "um", "spacing": "wide"}, (0, 0), None) == {}
