"""Data folders: splits.json names the files, and a wrong one is refused with what it holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zoo_models.errors import ImageError
from zoo_models.splits import SUFFIXES, data_file, split_names


def test_a_split_gives_its_names_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "splits.json").write_text('{"train": ["b", "a"], "val": [7]}')
    assert split_names(tmp_path, "train") == ("b", "a")
    assert split_names(tmp_path, "val") == ("7",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no splits\.json; expected a folder with images/"),
        ("{", r"not a JSON file"),
        ("\xff", r"no split 'test'|not a JSON file"),
        (json.dumps({"train": ["a"], "val": ["b"]}), r"no split 'test', found train, val"),
        (json.dumps(["a"]), r"no split 'test', found none"),
        (json.dumps({"test": []}), r"'test' is empty"),
        (json.dumps({"test": "a"}), r"'test' is empty"),
    ],
)
def test_a_split_that_is_not_there_is_refused_in_one_line(
    tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "splits.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ImageError, match=message) as caught:
        split_names(tmp_path, "test")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_name_is_found_with_any_suffix(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "images").mkdir()
    path = tmp_path / "images" / f"a.b{suffix}"
    path.touch()
    assert data_file(tmp_path, "images", "a.b") == path


def test_a_name_without_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels" / "a.tif").mkdir(parents=True)  # a folder is no file
    with pytest.raises(ImageError, match=r"labels.a: no file with suffix \.tif, \.tiff, \.png"):
        data_file(tmp_path, "labels", "a")
