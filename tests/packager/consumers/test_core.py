"""bioimageio.core's placement, against the installed bioimageio.core itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from bioimageio.core import Tensor
from bioimageio.core.axis import AxisInfo
from bioimageio.core.digest_spec import IO_SampleBlockMeta, get_io_sample_block_metas
from bioimageio.spec.model import v0_5
from hypothesis import given, settings
from hypothesis import strategies as st

from packager.consumers import core
from packager.consumers.placement import DeclaredAxis, Placement, Refusal, Tile
from packager.consumers.stitch import stitch
from tests.packager.consumers.conftest import EXACT, Toy, distance, noise
from zoo_models.geometry import Box

Toys = Callable[[int], Toy]
RAW, ANSWER = v0_5.TensorId("raw"), v0_5.TensorId("answer")
BATCH = v0_5.BatchAxis()
CHANNEL = v0_5.ChannelAxis(channel_names=[v0_5.Identifier("grey")])


def both(minimum: int, step: int, halo: int, offset: int = 0) -> tuple[DeclaredAxis, ...]:
    return (DeclaredAxis(minimum, step, halo, offset=offset),) * 2


def names(axes: Sequence[DeclaredAxis]) -> list[v0_5.AxisId]:
    return [v0_5.AxisId(name) for name in "zyx"[-len(axes) :]]


def input_axes(axes: Sequence[DeclaredAxis]) -> list[Any]:
    sizes = [
        v0_5.ParameterizedSize(min=a.minimum, step=a.step) if a.step else a.minimum for a in axes
    ]
    space = [
        v0_5.SpaceInputAxis(id=name, size=size)
        for name, size in zip(names(axes), sizes, strict=True)
    ]
    return [BATCH, CHANNEL, *space]


def output_axes(axes: Sequence[DeclaredAxis]) -> list[Any]:
    space: list[Any] = []
    for name, axis in zip(names(axes), axes, strict=True):
        size = v0_5.SizeReference(tensor_id=RAW, axis_id=name, offset=axis.offset)
        shared: dict[str, Any] = {"id": name, "size": size, "scale": 1 / axis.scale}
        if axis.halo:
            space.append(v0_5.SpaceOutputAxisWithHalo(**shared, halo=axis.halo))
        else:
            space.append(v0_5.SpaceOutputAxis(**shared))
    return [BATCH, CHANNEL, *space]


def blocks_of_core(
    axes: Sequence[DeclaredAxis], shape: Sequence[int], ns: Sequence[int]
) -> list[IO_SampleBlockMeta]:
    """Core's own records of its blocks, from as much of a description as it looks at."""
    construct: Any = v0_5.ModelDescr.model_construct  # the other fields may be missing
    model = construct(
        inputs=[v0_5.InputTensorDescr.model_construct(id=RAW, axes=input_axes(axes))],
        outputs=[v0_5.OutputTensorDescr.model_construct(id=ANSWER, axes=output_axes(axes))],
    )
    sizes = {BATCH.id: 1, CHANNEL.id: 1, **dict(zip(names(axes), shape, strict=True))}
    parameters = {
        (RAW, name): n for name, n, axis in zip(names(axes), ns, axes, strict=True) if axis.step
    }
    return list(get_io_sample_block_metas(model, {RAW: sizes}, parameters)[1])


def tile_of(block: IO_SampleBlockMeta, axes: Sequence[DeclaredAxis]) -> Tile:
    """What core reads with its padding, crops and writes."""
    read, written, ids = block.input.blocks[RAW], block.output.blocks[ANSWER], names(axes)
    return Tile(
        read=Box(
            tuple(read.outer_slice[a].start - read.padding[a].left for a in ids),
            tuple(read.outer_slice[a].stop + read.padding[a].right for a in ids),
        ),
        crop=Box(
            tuple(written.local_slice[a].start for a in ids),
            tuple(written.local_slice[a].stop for a in ids),
        ),
        write=Box(
            tuple(written.inner_slice[a].start for a in ids),
            tuple(written.inner_slice[a].stop for a in ids),
        ),
    )


def core_raises(blocks: Sequence[IO_SampleBlockMeta], answer: Sequence[int]) -> bool:
    """Whether core refuses an answer (z)yx at some block."""
    dims = ["batch", "channel", *"zyx"[-len(answer) :]]
    data = {ANSWER: Tensor(np.zeros((1, 1, *answer), np.float32), dims)}
    try:
        for block in blocks:
            block.output.with_data(data, stat={})
    except ValueError:
        return True
    return False


@st.composite
def declarations(draw: st.DrawFn, odd: bool = False) -> tuple[DeclaredAxis, ...]:
    """Two or three axes; some `odd` ones have outputs of another size than the input."""
    axes = []
    for _ in range(draw(st.integers(2, 3))):
        scale = draw(st.sampled_from([0.5, 1, 1, 2])) if odd else 1
        offset = draw(st.sampled_from([-4, 0, 0, 3])) if odd else 0
        halo = 2 * draw(st.integers(0, 5))
        minimum = int(2 * halo / scale) + draw(st.integers(10, 20))
        axes.append(DeclaredAxis(minimum, draw(st.integers(0, 9)), halo, scale, offset))
    return tuple(axes)


@settings(max_examples=50)  # core makes its records slowly
@given(axes=declarations(), data=st.data())
def test_blocks_are_read_cropped_and_written_as_core_does(
    axes: tuple[DeclaredAxis, ...], data: st.DataObject
) -> None:
    ns = [data.draw(st.integers(0, 3)) for _ in axes]
    tiles = [a.minimum + n * a.step for a, n in zip(axes, ns, strict=True)]
    shape = [tile + data.draw(st.integers(0, 30)) for tile in tiles]
    placement = core.place(axes, shape, n=ns)
    assert isinstance(placement, Placement)
    blocks = blocks_of_core(axes, shape, ns)
    assert list(placement) == [tile_of(block, axes) for block in blocks]
    assert placement.output == tuple(blocks[0].output.sample_shape[ANSWER][a] for a in names(axes))
    assert not core_raises(blocks, tiles)


@settings(max_examples=50)
@given(axes=declarations(odd=True), data=st.data())
def test_outputs_of_another_size_fail_where_core_fails(
    axes: tuple[DeclaredAxis, ...], data: st.DataObject
) -> None:
    tiles = [a.minimum for a in axes]
    shape = [tile + data.draw(st.integers(0, 30)) for tile in tiles]
    placement = core.place(axes, shape, n=[0] * len(axes))
    blocks = blocks_of_core(axes, shape, [0] * len(axes))
    fails = core_raises(blocks, [a.answer(t) for a, t in zip(axes, tiles, strict=True)])
    assert isinstance(placement, Refusal) == fails
    if any(a.offset for a in axes):
        assert isinstance(placement, Refusal)
        assert placement.how == "fails"
    if isinstance(placement, Placement):
        assert list(placement) == [tile_of(block, axes) for block in blocks]


@given(axes=declarations(), data=st.data())
def test_an_image_is_accepted_when_core_reads_it_as_it_is(
    axes: tuple[DeclaredAxis, ...], data: st.DataObject
) -> None:
    grid = [a.minimum + data.draw(st.integers(0, 2)) * a.step for a in axes]
    shape = [max(1, n + data.draw(st.sampled_from([0, 0, 0, 0, -1, 1]))) for n in grid]
    shape = data.draw(st.sampled_from([shape, shape[::-1]]))
    infos = [AxisInfo.create(axis) for axis in input_axes(axes)]
    refusal = core.accepts(axes, shape)
    try:
        taken = Tensor.from_numpy(np.empty(shape, np.uint8), dims=infos)
    except ValueError:
        assert refusal is not None
        assert refusal.how == "refuses"
        return
    view = taken.to_numpy()[0, 0]
    as_it_is = view.shape == tuple(shape) and view.flags.c_contiguous
    assert (refusal is None) == as_it_is
    if refusal is not None:
        assert "transposed" in refusal.reason


@pytest.mark.parametrize(
    ("shape", "how"), [((48, 60), "accepted"), ((60, 48), "fails"), ((50, 60), "refuses")]
)
def test_different_ranges_of_sizes_can_transpose_an_image(shape: tuple[int, int], how: str) -> None:
    refusal = core.accepts((DeclaredAxis(48, 8), DeclaredAxis(60, 10)), shape)
    assert (refusal.how if refusal else "accepted") == how


@pytest.mark.parametrize("n", [1, 10, 20])
@pytest.mark.parametrize(
    ("shape", "wrong"),
    [((200, 200), (0, 0, 0)), ((203, 219), (0.07, 0.37, 0.64))],
)
def test_blocks_of_an_image_off_the_grid_are_wrong_where_the_last_ones_are_shifted(
    toy: Toys, shape: tuple[int, int], wrong: tuple[float, ...], n: int
) -> None:
    image, placement = noise(shape), core.place(both(44, 4, 20), shape, n=n)
    assert isinstance(placement, Placement)
    gap = distance(
        stitch(toy(2).centred, image, placement).output, toy(2).whole(image, "symmetric")
    )
    share = dict(zip((1, 10, 20), wrong, strict=True))[n]
    assert (gap > EXACT).mean() == pytest.approx(share, abs=0.005 if share else 0)


@pytest.mark.parametrize(
    ("levels", "axes", "n", "shape", "exact"),
    [
        (2, both(52, 4, 24), 10, (200, 200), True),
        (2, both(44, 4, 20), 50, (1020, 772), True),
        (2, both(44, 4, 8), 10, (200, 200), False),  # less than the network loses
        (3, both(112, 8, 44), 10, (336, 352), False),  # as much, but the wrapper loses more
        (3, both(112, 8, 48), 10, (336, 352), True),
        (3, both(120, 8, 56), 10, (336, 352), True),
    ],
)
def test_blocks_on_the_grid_are_exact_when_the_halo_covers_what_the_wrapper_loses(
    toy: Toys,
    levels: int,
    axes: tuple[DeclaredAxis, ...],
    n: int,
    shape: tuple[int, int],
    exact: bool,
) -> None:
    image, placement = noise(shape), core.place(axes, shape, n=n)
    assert isinstance(placement, Placement)
    stitched = stitch(toy(levels).wrapped, image, placement)
    gap = distance(stitched.output, toy(levels).whole(image, "symmetric"))
    assert (gap.max() < EXACT) == exact
