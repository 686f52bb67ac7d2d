"""A model card says everything a package needs, and says at once all that is wrong with it."""

import datetime
from pathlib import Path

import pytest

from packager.card import Card
from zoo_models.errors import InputError


def test_a_card_is_read_with_its_sample_image_found(card: Card, card_path: Path) -> None:
    assert card.title == "Discs on a slope 2D"
    assert card.released == datetime.date(2025, 11, 21)
    assert card.sample.file == card_path.with_name("sample.tif")
    assert card.measurements[0].rows == (("AP@0.5", 0.875), ("images", 3))


def test_all_findings_come_in_one_line(card_path: Path, tmp_path: Path) -> None:
    text = card_path.read_text().replace('title = "Discs on a slope 2D"', 'title = "a.b/c"')
    text = text.replace('description = "Finds', f'descripton = "{"x" * 600}"\ndescription = "')
    text = text.replace("0000-0002-1825-0097", "0000")
    path = tmp_path / "card.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"card\.toml") as caught:
        Card.load(path)
    message = str(caught.value)
    assert "\n" not in message
    for field in ("title", "descripton", "authors.0.orcid"):
        assert field in message


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('doi = "10.48550/arXiv.2103.14572"', 'doi = "arXiv:2103.14572"', "citations.0.doi"),
        ('["images", 3]', '["images"]', "row 2 has 1 values for 2 columns"),
        ('description = "Finds', f'description = "{"x" * 512}', "description"),
        ('input_channels = ["fluorescence"]', "input_channels = []", "input_channels"),
        ("title =", "title", "TOML"),
        ('file = "sample.tif"', 'file = "absent.tif"', "absent.tif"),
        ("[[maintainers]]", "[[maintaners]]", "maintainers"),
    ],
)
def test_a_wrong_card_is_refused_and_the_field_named(
    card_path: Path, tmp_path: Path, old: str, new: str, named: str
) -> None:
    assert old in card_path.read_text()
    path = tmp_path / "card.toml"
    path.write_text(card_path.read_text().replace(old, new))
    (tmp_path / "sample.tif").write_bytes(b"")
    with pytest.raises(InputError, match=named):
        Card.load(path)


def test_a_missing_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"card\.toml: no such file"):
        Card.load(tmp_path / "card.toml")
