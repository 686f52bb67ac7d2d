"""Small copies of published layouts are read as their authors describe them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.measure import label as components_by_skimage

from training.datasets import Sample, read_data
from training.layouts import LAYOUTS
from training.sections import DataSection, Split
from zoo_models.errors import ImageError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 255, (6, 8), dtype=np.uint8)
RGB = RNG.integers(0, 255, (6, 8, 3), dtype=np.uint8)
VOLUME = RNG.integers(0, 255, (10, 6, 8), dtype=np.uint8)
IDS = np.repeat(np.repeat(np.arange(12).reshape(3, 4), 2, axis=0), 2, axis=1).astype(np.uint8)
IDS_ZYX = np.stack([IDS] * 10).astype(np.uint16) * 100


def read(
    folder: Path, layout: str, split: Split = "train", channels: int = 1, **more: object
) -> tuple[Sample, ...]:
    values = {"folder": str(folder), "layout": layout, "axes": LAYOUTS[layout].axes, **more}
    return read_data(DataSection.model_validate(values), split, channels=channels)


def put(path: Path, array: np.ndarray) -> Path:
    """An image file of the kind that its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, photometric="minisblack")
    else:
        Image.fromarray(array).save(path)
    return path


def put_palette(path: Path, indices: np.ndarray) -> None:
    image = Image.fromarray(indices).convert("P")
    image.putpalette([(37 * n) % 256 for n in range(768)])
    image.putdata(indices.ravel().tolist())
    image.save(path)


def splits(folder: Path, **names: list[str]) -> None:
    (folder / "splits.json").write_text(json.dumps(names))


def test_leaves_are_the_indices_of_palette_images_and_alpha_is_left_out(tmp_path: Path) -> None:
    put(tmp_path / "training" / "A1" / "plant001_rgb.png", RGB)
    rgba = np.dstack([RGB, np.full((6, 8), 255, np.uint8)])
    put(tmp_path / "training" / "A4" / "plant07_rgb.png", rgba)
    for name in ("A1/plant001", "A4/plant07"):
        put_palette(tmp_path / "training" / f"{name}_label.png", IDS)
    splits(tmp_path, train=["A4/plant07", "A1/plant001"])
    samples = read(tmp_path, "cvppp", channels=3)
    assert [s.name for s in samples] == ["A4/plant07", "A1/plant001"]
    for sample in samples:
        assert np.array_equal(sample.image, RGB.transpose(2, 0, 1))
        assert np.array_equal(sample.labels, IDS)
        assert sample.labels.dtype == np.int32


def test_one_part_of_the_leaf_challenge_can_be_read_alone(tmp_path: Path) -> None:
    for number in range(20):
        put(tmp_path / "A1" / f"plant{number:03}_rgb.png", RGB)
        put_palette(tmp_path / "A1" / f"plant{number:03}_label.png", IDS)
    names = [
        [s.name for s in read(tmp_path / "A1", "cvppp", split, channels=3)]
        for split in get_args(Split)
    ]
    assert [len(split) for split in names] == [16, 2, 2]
    together = sorted(name for split in names for name in split)
    assert together == [f"plant{number:03}" for number in range(20)]


def test_streets_keep_instances_of_evaluated_classes_only(tmp_path: Path) -> None:
    ids = np.array([[26001, 26002, 24000, 33999], [26, 7, 29001, 0]], np.uint16)
    photo = np.zeros((2, 4, 3), np.uint8)
    photo[0, 1] = [10, 20, 30]
    for split in ("train", "val"):
        name = "aachen_000000_000019"
        put(tmp_path / "leftImg8bit" / split / "aachen" / f"{name}_leftImg8bit.png", photo)
        put(tmp_path / "gtFine" / split / "aachen" / f"{name}_gtFine_instanceIds.png", ids)
    (sample,) = read(tmp_path, "cityscapes", "val", channels=3)
    assert sample.name == "aachen/aachen_000000_000019"
    assert sample.image[:, 0, 1].tolist() == [10, 20, 30]
    assert sample.labels.tolist() == [[26001, 26002, 24000, 33999], [0, 0, 0, 0]]
    with pytest.raises(ImageError, match="no labels for the split 'test', expected train or val"):
        read(tmp_path, "cityscapes", "test", channels=3)


def test_ovules_are_raw_and_label_of_hdf5_files_split_by_folder(tmp_path: Path) -> None:
    for split, name in (("train", "N_226_ds2x"), ("train", "N_290_ds2x"), ("val", "N_420_ds2x")):
        (tmp_path / split).mkdir(exist_ok=True)
        with h5py.File(tmp_path / split / f"{name}.h5", "w") as file:
            file["raw"], file["label"] = VOLUME, IDS_ZYX
            file["label_with_ignore"] = IDS_ZYX.astype(np.int32) - 1
    samples = read(tmp_path, "ovules")
    assert [s.name for s in samples] == ["N_226_ds2x", "N_290_ds2x"]
    assert np.array_equal(samples[1].image[0], VOLUME)
    assert np.array_equal(samples[1].labels, IDS_ZYX)
    splits(tmp_path, train=["N_290_ds2x"])
    assert [s.name for s in read(tmp_path, "ovules")] == ["N_290_ds2x"]


def put_stem(folder: Path, plant: int, hours: int, labels: np.ndarray) -> Path:
    name = f"{hours}hrs_plant{plant}_trim"
    put(folder / f"plant{plant}" / "processed_tiffs" / f"{name}-acylYFP.tif", VOLUME)
    put(folder / f"plant{plant}" / "processed_tiffs" / f"{name}-clv3.tif", VOLUME)
    segmented = f"{name}-acylYFP_hmin_2_asf_1_s_2.00_clean_3.tif"
    return put(folder / f"plant{plant}" / "segmentation_tiffs" / segmented, labels)


def test_the_stem_background_is_1_and_a_plant_is_in_one_split_only(tmp_path: Path) -> None:
    for plant in (1, 2, 4, 13, 15, 18):
        for hours in (0, 4):
            put_stem(tmp_path, plant, hours, IDS_ZYX + 1)
    plants: list[set[str]] = []
    for split in get_args(Split):
        samples = read(tmp_path, "stem", split)
        assert np.array_equal(samples[0].labels, np.where(IDS_ZYX == 0, 0, IDS_ZYX + 1))
        plants.append({s.name.split("/")[0] for s in samples})
        assert len(samples) == 2 * len(plants[-1])
    assert [len(p) for p in plants] == [4, 1, 1]
    assert len(set.union(*plants)) == 6


def test_a_stem_image_without_its_segmentation_is_named(tmp_path: Path) -> None:
    for plant in (1, 2, 4):
        put_stem(tmp_path, plant, 40, IDS_ZYX)
    put_stem(tmp_path, 4, 0, IDS_ZYX).unlink()
    splits(tmp_path, train=["plant4/0hrs_plant4_trim-acylYFP"])
    with pytest.raises(ImageError, match=r"another number for plant4/0hrs\S* \(0\)"):
        read(tmp_path, "stem")


def put_vnc(folder: Path) -> np.ndarray:
    masks = RNG.random((10, 6, 8)) < 0.25
    for z in range(10):
        put(folder / "stack1" / "raw" / f"{z:02}.tif", VOLUME[z])
        put(folder / "stack1" / "mitochondria" / f"{z:02}.png", masks[z] * np.uint8(255))
    return masks


def test_mitochondria_of_the_nerve_cord_are_connected_components_of_their_split(
    tmp_path: Path,
) -> None:
    masks = put_vnc(tmp_path)
    parts: list[tuple[Split, slice]] = [("train", slice(0, 8)), ("val", slice(8, 10))]
    for split, part in parts:
        (sample,) = read(tmp_path, "vnc", split)
        assert np.array_equal(sample.image[0], VOLUME[part])
        expected = components_by_skimage(masks[part], connectivity=3)
        pairs = np.unique(np.stack([expected.ravel(), sample.labels.ravel()]), axis=1)
        assert pairs.shape[1] == expected.max() + 1 == sample.labels.max() + 1
    with pytest.raises(ImageError, match="VNC has no labels for the split 'test'"):
        read(tmp_path, "vnc", "test")
    (tmp_path / "stack1" / "raw" / "03.tif").unlink()
    with pytest.raises(ImageError, match="sections 03 "):
        read(tmp_path, "vnc")


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("im", "mito-train-v2"),
        ("rat/im", "rat/mito-train-v2"),
        ("EM30-R-im", "EM30-R-mito-train-val-v2/mito-train-v2"),
        ("EM30-R-im/im", "EM30-R-mito-train-val-v2/mito-train-v2"),
    ],
)
def test_only_the_labelled_sections_inside_the_crop_are_opened(
    tmp_path: Path, images: str, labels: str
) -> None:
    for z in range(10):
        put(tmp_path / images / f"im{z:04}.png", VOLUME[z])
    for z in range(2, 8):
        put(tmp_path / labels / f"seg{z:04}.tif", IDS_ZYX[z] + z)
    for damaged in (0, 6):  # no labels, outside the crop
        (tmp_path / images / f"im{damaged:04}.png").write_bytes(b"")
    crop = {"train": {"z": [1, 4], "x": [2, 7]}}
    (sample,) = read(tmp_path, "mitoem", crop=crop)
    assert np.array_equal(sample.image[0], VOLUME[3:6, :, 2:7])
    assert np.array_equal(sample.labels, (IDS_ZYX + np.arange(10)[:, None, None])[3:6, :, 2:7])
    with pytest.raises(ImageError, match=r"im0006\.png"):
        read(tmp_path, "mitoem")


def test_wells_stay_together_and_masks_become_components(tmp_path: Path) -> None:
    for well in ("a01", "a02", "a03", "b01"):
        for site in (1, 2):
            name = f"mcf-z-stacks-03212011_{well}_s{site}"
            for channel in (1, 2):
                image = GREY.astype(np.uint16) * channel
                put(tmp_path / "BBBC006_v1_images_z_16" / f"{name}_w{channel}0f1c.tif", image)
            mask = (IDS % 2).astype(np.uint8) * 255
            put(tmp_path / "BBBC006_v1_labels" / f"{name}.png", IDS if site == 1 else mask)
    wells: list[set[str]] = []
    for split in get_args(Split):
        samples = read(tmp_path, "bbbc006", split)
        wells.append({s.name.split("_")[1] for s in samples})
        assert np.array_equal(samples[0].image[0], GREY)
        assert np.array_equal(samples[0].labels, IDS)
        expected = components_by_skimage(IDS % 2, connectivity=2)
        assert samples[1].labels.max() == expected.max() == 2
    assert sum(map(len, wells)) == len(set.union(*wells)) == 4


def put_nuclei(folder: Path, name: str, rgb: np.ndarray, masks: list[np.ndarray]) -> None:
    rgba = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
    put(folder / "stage1_train" / name / "images" / f"{name}.png", rgba)
    for number, mask in enumerate(masks):
        path = folder / "stage1_train" / name / "masks" / f"{number:02}.png"
        put(path, mask * np.uint8(255))


def test_masks_of_single_nuclei_are_merged_and_the_smaller_one_is_on_top(tmp_path: Path) -> None:
    small, large = np.zeros((2, 6, 8), bool)
    small[1:3, 1:3] = large[1:5, 2:8] = True
    put_nuclei(tmp_path, "grey", np.dstack([GREY] * 3), [small, large])
    put_nuclei(tmp_path, "stained", RGB, [large])
    splits(tmp_path, train=["grey"], val=["grey", "stained"])
    (sample,) = read(tmp_path, "dsb2018")
    assert np.array_equal(sample.image[0], GREY)
    assert np.array_equal(sample.labels, np.where(small, 1, 2 * large))
    grey, stained = read(tmp_path, "dsb2018", "val", channels=3)
    assert np.array_equal(grey.image, np.stack([GREY] * 3))
    assert np.array_equal(stained.image, RGB.transpose(2, 0, 1))
    with pytest.raises(ImageError, match=r"stained\.png: has .*\(colour\), expected 1"):
        read(tmp_path, "dsb2018", "val")


def test_worm_nuclei_are_pairs_of_equal_names(tmp_path: Path) -> None:
    put(tmp_path / "val" / "images" / "C18G1_2L1_1.tif", VOLUME)
    put(tmp_path / "val" / "masks" / "C18G1_2L1_1.tif", IDS_ZYX.astype(np.uint32))
    (sample,) = read(tmp_path, "nuclei3d", "val")
    assert np.array_equal(sample.image[0], VOLUME)
    assert np.array_equal(sample.labels, IDS_ZYX)


def test_the_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    for name in "abc":
        put(tmp_path / "train" / "images" / f"{name}.tif", VOLUME)
    put(tmp_path / "train" / "masks" / "a.tif", IDS_ZYX)
    put(tmp_path / "train" / "masks" / "c.tif", IDS_ZYX[:9])
    message = r"b\.tif: does not exist.* \| .*c\.tif: labels of shape \(9, 6, 8\), expected \(10,"
    with pytest.raises(ImageError, match=message):
        read(tmp_path, "nuclei3d")


def test_a_name_that_the_layout_does_not_hold_is_refused(tmp_path: Path) -> None:
    put_nuclei(tmp_path, "here", np.dstack([GREY] * 3), [IDS > 3])
    splits(tmp_path, train=["here", "gone"])
    with pytest.raises(ImageError, match=r"names gone \(1 of 2 names\).*such as here"):
        read(tmp_path, "dsb2018")


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("folder", [".", "none"])
def test_an_empty_folder_is_refused_with_what_should_be_there(
    tmp_path: Path, layout: str, folder: str
) -> None:
    axes = LAYOUTS[layout].axes or "yx"
    with pytest.raises(ImageError, match="expected") as caught:
        read(tmp_path / folder, layout, axes=axes)
    assert "\n" not in str(caught.value)


def test_every_layout_of_a_configuration_is_there() -> None:
    names = get_args(DataSection.model_fields["layout"].annotation)
    assert set(names) == {*LAYOUTS, "volumes"}
