"""A padded image is the mirrored image, and the crop gives the image back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo_models.errors import GeometryError, InputError
from zoo_models.prediction.accepted_sizes import AcceptedSizes, SizeRange
from zoo_models.prediction.padding import PadRecord, crop_back, pad_to, space_axes

DTYPES = ["uint8", "uint16", "int16", "float32"]
ranges = st.builds(SizeRange, st.integers(1, 40), st.integers(1, 12))


@st.composite
def padded_images(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, ...], AcceptedSizes]:
    """(image with perhaps a channel axis, its shape (z)yx, what a model takes)."""
    axes = draw(st.sampled_from(["yx", "zyx"]))
    shape = tuple(draw(st.integers(1, 30)) for _ in axes)
    channels = draw(st.sampled_from([(), (1,), (3,)]))
    accepted = AcceptedSizes("", axes, tuple(draw(ranges) for _ in axes), 1)  # type: ignore[arg-type]
    draw_pixels = np.random.default_rng(draw(st.integers(0, 9)))
    image = draw_pixels.integers(0, 200, (*channels, *shape)).astype(draw(st.sampled_from(DTYPES)))
    return image, shape, accepted


def record(shape: tuple[int, ...], padded: tuple[int, ...]) -> PadRecord:
    axes: Any = "zyx"[-len(shape) :]
    return PadRecord(
        spoco_zoo_padding=1, source="a.tif", model="m", axes=axes, shape=shape, padded_shape=padded
    )


@given(padded_images())
def test_a_padded_image_is_numpys_symmetric_padding_and_is_cropped_to_itself(
    case: tuple[np.ndarray, tuple[int, ...], AcceptedSizes],
) -> None:
    image, shape, accepted = case
    target = accepted.smallest(shape)
    padded = pad_to(image, target)
    at_end = [(0, t - s) for s, t in zip(shape, target, strict=True)]
    widths = [(0, 0)] * (image.ndim - len(shape)) + at_end
    np.testing.assert_array_equal(padded, np.pad(image, widths, mode="symmetric"))
    assert padded.dtype == image.dtype
    last = range(image.ndim - len(shape), image.ndim)
    np.testing.assert_array_equal(crop_back(padded, last, shape), image)


@pytest.mark.parametrize(("shape", "target"), [((9, 9), (9, 8)), ((9,), (9, 9))])
def test_an_image_is_never_padded_to_less(shape: tuple[int, ...], target: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match="cannot be padded"):
        pad_to(np.zeros(shape), target)


@pytest.mark.parametrize(
    ("shape", "names", "axes"),
    [
        ((64, 88), "", (0, 1)),
        ((16, 64, 88), "", (1, 2)),
        ((1, 16, 64, 88), "", (2, 3)),
        ((64, 88, 16), "", (0, 1)),  # channels last
        ((64, 88, 16), "CYX", (0, 1)),  # named wrongly: sizes decide
        ((64, 64, 88), "CYX", (1, 2)),  # sizes fit twice: names decide
    ],
)
def test_the_padded_axes_are_found_by_size_and_only_then_by_name(
    shape: tuple[int, ...], names: str, axes: tuple[int, ...]
) -> None:
    assert space_axes(shape, record((61, 83), (64, 88)), names) == axes


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((88, 64), "88 x 64, expected axes yx of 64 x 88"),
        ((64,), "expected axes yx"),
        ((16, 61, 83), "cropped already"),
        ((64, 64, 88), "2 choices of axes.*named axes"),
    ],
)
def test_axes_that_do_not_fit_or_fit_twice_are_refused(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(GeometryError, match=words):
        space_axes(shape, record((61, 83), (64, 88)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"spoco_zoo_padding": 1', '"spoco_zoo_padding": 2'),
        ('"spoco_zoo_padding": 1,', ""),
        ('"axes": "yx"', '"axes": "zyx"'),
        ("61", "-1"),
        ("61", "65"),
        ("{", ""),
    ],
)
def test_another_record_is_refused(tmp_path: Path, old: str, new: str) -> None:
    text = record((61, 83), (64, 88)).model_dump_json(indent=2)
    assert old in text
    (tmp_path / "r.json").write_text(text.replace(old, new))
    with pytest.raises(InputError, match=r"not a record of padding.*spoco-zoo pad"):
        PadRecord.load(tmp_path / "r.json")
