"""The torch graph gives the very labels of the numpy clusterer, in two and three dimensions."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from packager.graphs.basin_merging import BasinMergingGraph
from packager.graphs.pieces import pieces
from packager.graphs.regions import regions
from tests.zoo_models.postprocessing.conftest import BACKGROUND, PLACES, Labels, embed, scene
from zoo_models.postprocessing.basin_merging import BasinMerging

Embeddings = np.ndarray[Any, np.dtype[np.float32]]
KNOWN: dict[str, Any] = {"min_size": 1, "background": list(BACKGROUND)}
SPREAD = [0.9, -0.2, 0.1, 0.3, 0.5, 0.0, -0.1, 0.4, 1.3]
"""Neither symmetric nor diagonal: rows and columns cannot be taken for each other."""


def run(graph: torch.nn.Module, embeddings: Embeddings) -> Labels:
    labels = graph(torch.from_numpy(embeddings)[None])
    assert labels.dtype == torch.float32
    assert labels.shape == (1, 1, *embeddings.shape[1:])
    return np.asarray(labels[0, 0])


def scripted(**clusterer: Any) -> torch.nn.Module:
    """Scripted, saved and loaded: what a package carries."""
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(BasinMergingGraph(**clusterer).eval()), file)
    file.seek(0)
    loaded: torch.nn.Module = torch.jit.load(file)
    return loaded


@pytest.fixture(scope="module")
def loaded() -> torch.nn.Module:
    return scripted(**KNOWN)


@pytest.fixture
def compiling_runtime() -> Iterator[None]:
    """Runtimes with LLVM compile elementwise chains on the CPU; here it is allowed without LLVM."""
    torch_c: Any = torch._C  # its type hints lack some of these
    before = torch_c._jit_can_fuse_on_cpu(), torch_c._jit_get_te_must_use_llvm_cpu()
    fuser = torch_c._jit_texpr_fuser_enabled()
    torch_c._jit_set_texpr_fuser_enabled(True)
    torch_c._jit_override_can_fuse_on_cpu(True)
    torch_c._jit_set_te_must_use_llvm_cpu(False)
    yield
    torch_c._jit_override_can_fuse_on_cpu(before[0])
    torch_c._jit_set_te_must_use_llvm_cpu(before[1])
    torch_c._jit_set_texpr_fuser_enabled(fuser)


@st.composite
def noisy_cells(draw: st.DrawFn) -> Embeddings:
    """Cells of 4 pixels' edge, any size of image, from clean to nothing but noise."""
    ndim = draw(st.sampled_from([2, 3]))
    shape = draw(st.tuples(*[st.integers(1, 11 if ndim == 3 else 33)] * ndim))
    noise = draw(st.sampled_from([0, 0.1, 1, 4]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cells = rng.integers(0, len(PLACES), [-(-n // 4) for n in shape])
    categories = np.kron(cells, np.ones((4,) * ndim, np.int64))[tuple(map(slice, shape))]
    clean = embed(categories)
    return (clean + rng.normal(0, noise, clean.shape)).astype(np.float32)


@settings(max_examples=30)
@given(
    embeddings=noisy_cells(),
    join=st.sampled_from([0.1, 0.8, 3.0]),
    merge=st.sampled_from([1.0, 3.2, 8.5]),
    solid=st.sampled_from([0, 0.9, 1.2]),
    min_size=st.integers(1, 20),
    background=st.sampled_from(
        [{}, {"background": BACKGROUND}, {"background": BACKGROUND, "spread": SPREAD}]
    ),
)
def test_the_graph_numbers_every_pixel_as_the_numpy_clusterer(
    embeddings: Embeddings, background: dict[str, Any], **clusterer: Any
) -> None:
    clusterer |= background
    expected = BasinMerging(**clusterer)(embeddings)
    np.testing.assert_array_equal(run(BasinMergingGraph(**clusterer), embeddings), expected)


def test_a_scripted_file_does_so_at_any_size_and_however_often_it_runs(
    loaded: torch.nn.Module,
) -> None:
    draw = np.random.default_rng(3)
    for shape in [(24, 40), (24, 40), (24, 40), (7, 90), (1, 5), (6, 9, 12)]:
        categories = draw.integers(0, len(PLACES), [-(-n // 3) for n in shape])
        tiled = np.kron(categories, np.ones((3,) * len(shape), np.int64))
        noise = draw.normal(0, 0.7, (3, *shape))
        embeddings = (embed(tiled[tuple(map(slice, shape))]) + noise).astype(np.float32)
        expected = BasinMerging(**KNOWN)(embeddings)
        np.testing.assert_array_equal(run(loaded, embeddings), expected)
        assert expected.max() > 1 or shape == (1, 5)


def test_a_scripted_file_measures_the_distance_in_units_of_the_spread() -> None:
    clusterer: dict[str, Any] = {**KNOWN, "spread": SPREAD, "radius": 3.0}
    noise = np.random.default_rng(2).normal(0, 0.7, (3, 24, 40))
    embeddings = (embed(scene(), PLACES * 0.6) + noise).astype(np.float32)
    numpys = BasinMerging(**clusterer)
    graph = scripted(**clusterer)
    for _ in range(3):
        np.testing.assert_array_equal(run(graph, embeddings), numpys(embeddings))
    distance = BasinMergingGraph(**clusterer).from_background(torch.from_numpy(embeddings))
    np.testing.assert_allclose(distance, numpys.landscape(embeddings, BACKGROUND)[0], rtol=1e-6)
    assert (numpys(embeddings) != BasinMerging(**KNOWN, radius=3.0)(embeddings)).any()


def test_a_spread_that_does_not_fit_its_background_is_refused() -> None:
    with pytest.raises(ValueError, match="spread has 8 numbers and background has 3"):
        BasinMergingGraph(**KNOWN, spread=SPREAD[:8])


def test_all_images_of_a_batch_are_numbered_from_one() -> None:
    graph = BasinMergingGraph(**KNOWN)
    batch = torch.from_numpy(np.stack([embed(scene()), embed(scene()[::-1])]))
    labels = graph(batch)
    assert labels.shape == (2, 1, 24, 40)
    for image, found in zip(batch, labels, strict=True):
        np.testing.assert_array_equal(found[0], BasinMerging(**KNOWN)(image.numpy()))


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1), (1, 40), (9, 9), (3, 4, 5)])
@pytest.mark.parametrize("category", [0, 1])
def test_an_image_of_background_is_empty_and_one_of_an_object_full(
    shape: tuple[int, ...], category: int, loaded: torch.nn.Module
) -> None:
    labels = run(loaded, embed(np.full(shape, category)))
    assert (labels == category).all()
    assert not run(BasinMergingGraph(min_size=1), embed(np.full(shape, category))).any()


def test_many_groups_of_one_valley_merge_in_the_order_of_distance() -> None:
    """A slope of embeddings: which neighbours merge first decides what all the others do."""
    draw = np.random.default_rng(5)
    steps = np.kron(draw.uniform(5, 11, (12, 12)), np.ones((4, 4)))
    embeddings = np.zeros((3, 48, 48), np.float32)
    embeddings[0] = steps
    clusterer: dict[str, Any] = {**KNOWN, "join": 0.05, "merge": 1.5}
    expected = BasinMerging(**clusterer)(embeddings)
    assert 5 < expected.max() < 100
    np.testing.assert_array_equal(run(scripted(**clusterer), embeddings), expected)


def plane(text: str) -> Labels:
    return np.array([[int(c) for c in line] for line in text.split()])


def pieces_by_scipy(groups: Labels, rim: Labels, min_size: int) -> Labels:
    """The last two steps, group by group, on the whole image."""
    found = np.zeros_like(groups)
    for group in range(1, groups.max() + 1):
        own = groups == group
        parts, number = ndimage.label(own & rim)
        kept = own & ~rim
        for part in range(1, number + 1):
            around = ndimage.binary_dilation(parts == part)
            kept |= (parts == part) & bool(own[around].all())
        solid, number = ndimage.label(kept)
        for piece in range(1, number + 1):
            if (solid == piece).sum() >= min_size:
                found[solid == piece] = np.flatnonzero(solid == piece)[0] + 1
    _, number = np.unique(found, return_inverse=True)
    return (number + (found > 0).all()).reshape(groups.shape)


def test_rim_goes_but_what_its_group_encloses_stays() -> None:
    groups = plane("""
        0000000000000
        0111111111110
        0111111122220
        0111111122220
        0111111111110
        0000000000000
    """)
    rim = np.zeros(groups.shape, bool)
    rim[1, 1:12] = True  # beside the background
    rim[3, 3:5] = True  # enclosed
    rim[2, 9] = True  # beside the other group
    expected = np.where(rim, 0, groups)
    expected[3, 3:5] = 1
    found = pieces(torch.from_numpy(groups), torch.from_numpy(rim), 1)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found, pieces_by_scipy(groups, rim, 1))
    assert pieces(torch.from_numpy(groups), torch.from_numpy(rim), 8).max() == 1


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.one_of(st.tuples(*[st.integers(1, 14)] * 2), st.tuples(*[st.integers(1, 6)] * 3)),
    number=st.integers(1, 4),
    rims=st.floats(0, 0.6),
    min_size=st.integers(1, 6),
)
def test_pieces_of_any_arrangement_are_those_that_scipy_finds(
    seed: int, shape: tuple[int, ...], number: int, rims: float, min_size: int
) -> None:
    draw = np.random.default_rng(seed)
    groups, rim = draw.integers(0, number + 1, shape), draw.random(shape) < rims
    found = pieces(torch.from_numpy(groups), torch.from_numpy(rim), min_size)
    np.testing.assert_array_equal(found, pieces_by_scipy(groups, rim, min_size))


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.one_of(st.tuples(*[st.integers(1, 30)] * 2), st.tuples(*[st.integers(1, 9)] * 3)),
    number=st.integers(1, 4),
)
def test_regions_are_the_connected_parts_in_raster_order(
    seed: int, shape: tuple[int, ...], number: int
) -> None:
    categories = np.random.default_rng(seed).integers(0, number, shape)
    found = regions(torch.from_numpy(categories)).numpy()
    assert np.unique(found, return_index=True)[1].tolist() == sorted(
        np.flatnonzero(found == r)[0] for r in range(found.max() + 1)
    )
    for category in range(number):
        parts, parts_number = ndimage.label(categories == category)
        inside = categories == category
        pairs = np.unique(np.stack([found[inside], parts[inside]]), axis=1)
        assert pairs.shape[1] == parts_number == len(np.unique(found[inside]))


@pytest.mark.usefixtures("compiling_runtime")
@pytest.mark.parametrize("known", [{}, {"background": BACKGROUND, "spread": SPREAD}])
def test_no_runtime_finds_a_chain_of_operations_to_compile(known: dict[str, Any]) -> None:
    chain = torch.jit.script(_chain)
    for _ in range(3):
        chain(torch.ones(4))
    assert "TensorExprGroup" in str(torch.jit.last_executed_optimized_graph())  # it would show
    graph = scripted(min_size=1, **known)
    noise = np.random.default_rng(0).normal(0, 1, (3, 20, 21)).astype(np.float32)
    noise[:, 10:] *= 5
    for _ in range(3):
        run(graph, noise)
    assert "TensorExprGroup" not in str(torch.jit.last_executed_optimized_graph())


def _chain(x: torch.Tensor) -> torch.Tensor:
    return (x + 1) * x - 2
