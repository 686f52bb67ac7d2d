"""Pictures: what differs gets another colour, the same gets the same."""

from __future__ import annotations

import numpy as np

from zoo_models.colours import embedding_colours, label_colours, principal_directions


def test_embeddings_that_differ_get_different_colours() -> None:
    embeddings = np.zeros((16, 8, 12), np.float32)
    embeddings[3, :, :6] = 2
    embeddings[7, :4] = 5
    colours = embedding_colours(embeddings, principal_directions(embeddings))
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) == 4


def test_two_dimensions_are_enough_for_colours() -> None:
    embeddings = np.random.default_rng(0).random((2, 8, 12), np.float32)
    assert embedding_colours(embeddings, principal_directions(embeddings)).shape == (8, 12, 3)


def test_neighbouring_labels_differ_in_colour_and_background_is_black() -> None:
    colours = label_colours(np.arange(6, dtype=np.int32)[None])[0].astype(int)
    assert (colours[0] == 0).all()
    assert (np.abs(np.diff(colours, axis=0)).sum(axis=1) > 60).all()
