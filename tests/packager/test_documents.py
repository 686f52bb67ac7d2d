"""README and cover say and show what was measured."""

import io
import re

import numpy as np
from PIL import Image

from packager.card import Card
from packager.documents import PANEL, cover, readme
from tests.packager.conftest import make_subject
from zoo_models.checkpoint import Checkpoint


def test_the_readme_has_the_validation_section_with_the_numbers(
    checkpoint: Checkpoint, card: Card
) -> None:
    text = readme(make_subject(checkpoint, card))
    validation = text[text.index("# Validation") :]
    assert re.search(r"#.*[vV]alidation", text)  # the validator's own search
    assert "| AP@0.5 | 0.875 |" in validation
    assert "Knows discs only." in validation


def test_the_readme_states_the_geometry_and_the_clusterer(
    checkpoint: Checkpoint, card: Card
) -> None:
    text = readme(make_subject(checkpoint, card))
    assert "| y | 48 | 8 | 20 | 4 | 20 |" in text
    assert "`basin_merging.py` (join = 0.4, min_size = 5)" in text
    assert "https://doi.org/10.48550/arXiv.2103.14572" in text


def test_the_cover_is_a_small_png_two_to_one() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((1, 90, 130), np.float32)
    embeddings = rng.random((16, 90, 130), np.float32)
    labels = np.zeros((90, 130), np.int32)
    labels[20:50, 40:80] = 7
    content = cover(image, embeddings, labels)
    with Image.open(io.BytesIO(content)) as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        assert picture.size == (2 * PANEL[0], PANEL[0])
    assert len(content) < 500_000  # the zoo's limit; noise compresses worst
    assert content == cover(image, embeddings, labels)


def test_the_cover_of_a_volume_shows_its_middle_plane() -> None:
    image = np.zeros((1, 5, 60, 60), np.float32)
    image[0, 2, :30] = 1
    labels = np.zeros((5, 60, 60), np.int32)
    embeddings = np.repeat(image, 3, axis=0)
    flat = cover(image[:, 2], embeddings[:, 2], labels[2])
    assert cover(image, embeddings, labels) == flat
