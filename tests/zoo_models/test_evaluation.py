"""Label files paired by name and scored."""

import json
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from numpy.typing import NDArray

from zoo_models.errors import ImageError
from zoo_models.evaluation import evaluate
from zoo_models.metrics import aggregate, score
from zoo_models.prediction.images import write_labels

Labels = NDArray[np.uint16]

TWO_SQUARES = np.zeros((16, 12), np.uint16)
TWO_SQUARES[1:5, 1:5] = 1
TWO_SQUARES[8:12, 1:5] = 2
ONE_SQUARE = np.where(TWO_SQUARES == 1, 7, 0).astype(np.uint16)


def folder_of(parent: Path, name: str, files: dict[str, Labels]) -> Path:
    folder = parent / name
    folder.mkdir()
    for file, labels in files.items():
        if file.endswith(".png"):
            iio.imwrite(folder / file, labels)
        else:
            write_labels(folder / file, labels, axes="yx")
    return folder


def test_two_files_are_scored_whatever_their_names(tmp_path: Path) -> None:
    write_labels(tmp_path / "x.ome.tif", ONE_SQUARE, axes="yx")
    write_labels(tmp_path / "y.tif", TWO_SQUARES, axes="yx")
    table = evaluate(tmp_path / "x.ome.tif", tmp_path / "y.tif")
    assert [row.name for row in table.rows] == ["y"]
    assert table.rows[0].scores == score(ONE_SQUARE, TWO_SQUARES)
    assert table.overall.ap50 == 0.5


def test_folders_are_paired_by_name_across_suffixes_and_formats(tmp_path: Path) -> None:
    predicted = folder_of(
        tmp_path,
        "predicted",
        {"b_labels.ome.tif": ONE_SQUARE, "a.v2.tif": TWO_SQUARES, "a_overlay.png": ONE_SQUARE},
    )
    truth = folder_of(tmp_path, "truth", {"a.v2_masks.png": TWO_SQUARES, "b.tif": TWO_SQUARES})
    table = evaluate(predicted, truth)
    assert {row.name: row.scores.ap50 for row in table.rows} == {"a.v2": 1.0, "b": 0.5}
    assert table.overall == aggregate([row.scores for row in table.rows])


def test_a_longer_name_is_not_mistaken_for_its_beginning(tmp_path: Path) -> None:
    predicted = folder_of(tmp_path, "predicted", {"a_1.tif": TWO_SQUARES})
    truth = folder_of(tmp_path, "truth", {"a.tif": TWO_SQUARES})
    with pytest.raises(ImageError, match="do not pair up"):
        evaluate(predicted, truth)


def test_files_without_partner_are_named_on_both_sides(tmp_path: Path) -> None:
    predicted = folder_of(tmp_path, "predicted", {"a.tif": ONE_SQUARE, "extra.tif": ONE_SQUARE})
    truth = folder_of(tmp_path, "truth", {"a.tif": ONE_SQUARE, "forgotten.tif": ONE_SQUARE})
    with pytest.raises(ImageError, match=r"predicted.*\(extra\).*truth.*\(forgotten\)"):
        evaluate(predicted, truth)


def test_two_files_for_one_image_are_refused(tmp_path: Path) -> None:
    files = {"a.tif": ONE_SQUARE, "a_labels.tif": ONE_SQUARE}
    folder = folder_of(tmp_path, "predicted", files)
    with pytest.raises(ImageError, match=r"a\.tif and a_labels\.tif both stand for 'a'"):
        evaluate(folder, folder)


def test_a_file_against_a_folder_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "truth", {"a.tif": ONE_SQUARE})
    with pytest.raises(ImageError, match=r"is a file.*is a folder"):
        evaluate(folder / "a.tif", folder)


def test_a_path_that_does_not_exist_is_refused_with_its_neighbours(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "truth", {"a.tif": ONE_SQUARE})
    with pytest.raises(ImageError, match="did you mean truth"):
        evaluate(folder, tmp_path / "truht")


def test_shapes_that_differ_are_refused_with_the_files_named(tmp_path: Path) -> None:
    write_labels(tmp_path / "x.tif", ONE_SQUARE, axes="yx")
    write_labels(tmp_path / "y.tif", ONE_SQUARE.T, axes="yx")
    with pytest.raises(ImageError, match=r"x\.tif.*\(16, 12\).*y\.tif.*\(12, 16\)"):
        evaluate(tmp_path / "x.tif", tmp_path / "y.tif")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="folder without images"):
        evaluate(tmp_path / "empty", tmp_path / "empty")


def test_the_table_survives_json(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "truth", {"a.tif": TWO_SQUARES, "b.tif": ONE_SQUARE})
    table = evaluate(folder, folder).as_json()
    back = json.loads(json.dumps(table, allow_nan=False))
    assert back == table
    assert [image["name"] for image in back["images"]] == ["a", "b"]
    assert back["overall"]["ap50"] == 1.0
