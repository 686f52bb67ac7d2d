"""The compiled mutex watershed gives what the shipped file gives, pixel by pixel."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo_models.compiled import mutex_watershed as compiled
from zoo_models.postprocessing import mutex_watershed as shipped


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**32 - 1),
    nodes=st.integers(1, 60),
    edges=st.integers(0, 600),
    attracting=st.floats(0, 1),
)
def test_any_graph_is_partitioned_alike(
    seed: int, nodes: int, edges: int, attracting: float
) -> None:
    draw = np.random.default_rng(seed)
    first, second = draw.integers(0, nodes, (2, edges), np.int32)
    attracts = draw.random(edges) < attracting
    expected = shipped.partition(nodes, first, second, attracts)
    found = compiled.partition(nodes, first, second, attracts)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    ndim=st.sampled_from([2, 3]),
    sigma=st.sampled_from([0.0, 0.3, 1.5]),
    masked=st.booleans(),
)
def test_any_image_is_labelled_alike(seed: int, ndim: int, sigma: float, masked: bool) -> None:
    draw = np.random.default_rng(seed)
    places = draw.normal(0, 3, (4, 3)).astype(np.float32)
    shape = draw.integers(1, 40 if ndim == 2 else 12, ndim)
    cells = draw.integers(0, 4, -(-shape // 5))
    blocks = np.kron(cells, np.ones((5,) * ndim, np.int64))[tuple(slice(n) for n in shape)]
    embeddings = np.moveaxis(places[blocks], -1, 0)
    embeddings = embeddings + draw.normal(0, sigma, embeddings.shape).astype(np.float32)
    foreground = draw.random(blocks.shape) < 0.9 if masked else None
    expected = shipped.MutexWatershed(min_size=2)(embeddings, foreground)
    found = compiled.MutexWatershed(min_size=2)(embeddings, foreground)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype
