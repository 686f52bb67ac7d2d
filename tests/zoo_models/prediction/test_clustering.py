"""Which clusterer runs: the model's margins, then its settings, then what the caller wants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo_models.checkpoint import ClustererSettings
from zoo_models.errors import ImageError, InputError
from zoo_models.postprocessing import CLUSTERERS, build_clusterer
from zoo_models.prediction.clustering import (
    COMPARES_TEACHER,
    ClustererOptions,
    EmbeddingSpace,
    instances,
    read_foreground,
    setting_types,
)

OWN = ClustererSettings("basin_merging", {"solid": 0.5, "min_size": 7, "background": [1.0, 2.0]})
MODEL = EmbeddingSpace(0.3, 1.7, OWN, dimensions=2, axes="yx")
OTHERS = [name for name in CLUSTERERS if name != OWN.name]


def chosen(*settings: str, **options: Any) -> ClustererSettings:
    return ClustererOptions(settings=settings, **options).applied(MODEL).clusterer


def test_by_default_the_models_method_settings_and_margins_are_used() -> None:
    expected = {"delta_v": 0.3, "delta_d": 1.7, **OWN.settings}
    assert chosen() == ClustererSettings(OWN.name, expected)
    assert chosen(method=OWN.name) == chosen()


@pytest.mark.parametrize("method", OTHERS)
def test_another_method_gets_the_margins_and_what_all_methods_share(method: str) -> None:
    expected = {"delta_v": 0.3, "delta_d": 1.7, "min_size": 7, "background": [1.0, 2.0]}
    assert (chosen(method=method).name, chosen(method=method).settings) == (method, expected)
    built: Any = build_clusterer(chosen(method=method))
    assert (built.delta_v, built.delta_d) == (0.3, 1.7)


def test_without_a_model_the_margins_are_those_of_the_paper() -> None:
    space = ClustererOptions().applied(EmbeddingSpace())
    assert space.clusterer.settings == {"delta_v": 0.5, "delta_d": 2.0}


def test_what_the_caller_wants_comes_last() -> None:
    found = chosen("solid=0.25", "delta_d=3", "background=[0, 1]", min_size=9).settings
    assert found == {
        "delta_v": 0.3,
        "delta_d": 3.0,
        "solid": 0.25,
        "min_size": 9,
        "background": [0.0, 1.0],
    }


@settings(max_examples=30)
@given(value=st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53))
def test_every_number_arrives_as_it_was_written(value: float) -> None:
    assert chosen(f"solid={json.dumps(value)}").settings["solid"] == value


@pytest.mark.parametrize("method", CLUSTERERS)
def test_every_method_takes_what_all_methods_share(method: str) -> None:
    types = setting_types(method)
    assert {"delta_v", "delta_d", "min_size", "background"} <= set(types)
    wanted = ("min_size=3", "background=[1, 2.5]", "delta_v=1")
    found = chosen(*wanted, method=method).settings
    assert found == {
        "delta_v": 1.0, "delta_d": 1.7, "min_size": 3, "background": [1.0, 2.5],
        **({k: v for k, v in OWN.settings.items() if k == "solid"} if method == OWN.name else {}),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("solod=0.5", ("'solod'", "solid, min_size, background")),
        ("solid", ("'solid'", "expected KEY=VALUE")),
        ("=1", ("''", "expected KEY=VALUE")),
        ("solid=much", ("'much'", "a number", "JSON")),
        ("solid=", ("''", "a number")),
        ("solid=true", ("'true'", "a number")),
        ("solid=NaN", ("'NaN'", "a number")),
        ("solid=-Infinity", ("'-Infinity'", "a number")),
        ("join=null", ("'null'", "a number")),
        ("join=[1]", ("'[1]'", "a number")),
        ("min_size=2.5", ("'2.5'", "a whole number")),
        ("min_size=2.0", ("'2.0'", "a whole number")),
        ("background=1", ("'1'", "a list of numbers")),
        ('background=["a"]', ("""'["a"]'""", "a list of numbers")),
    ],
)
def test_a_setting_that_the_method_does_not_take_is_refused(
    text: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(InputError) as caught:
        chosen(text)
    for word in (f"--set {text}", *words):
        assert word in str(caught.value)


def test_a_setting_given_twice_is_refused() -> None:
    for texts, options in ((("solid=1", "solid=1"), {}), (("min_size=1",), {"min_size": 2})):
        with pytest.raises(InputError, match="is given twice"):
            chosen(*texts, **options)


def test_an_unknown_method_is_refused_with_the_known() -> None:
    with pytest.raises(InputError, match="'magic'.*" + ", ".join(CLUSTERERS)):
        chosen(method="magic")


class Recorder:
    """A clusterer that keeps what it was given."""

    def __call__(self, embeddings: np.ndarray, foreground: np.ndarray | None = None) -> np.ndarray:
        self.embeddings, self.foreground = embeddings, foreground
        return np.zeros(embeddings.shape[1:], np.int32)


BOTH = np.arange(4 * 3 * 3, dtype=np.float32).reshape(4, 3, 3)


def test_a_method_without_teacher_gets_the_networks_dimensions() -> None:
    recorder, mask = Recorder(), np.eye(3, dtype=bool)
    labels = instances(recorder, BOTH, MODEL, foreground=mask, source="e.npy")
    assert labels.shape == (3, 3)
    np.testing.assert_array_equal(recorder.embeddings, BOTH[:2])
    assert recorder.foreground is mask


def test_a_method_with_teacher_gets_both_and_refuses_one() -> None:
    (name,) = COMPARES_TEACHER
    recorder, space = Recorder(), EmbeddingSpace(dimensions=2, clusterer=ClustererSettings(name))
    instances(recorder, BOTH, space, source="e.npy")
    np.testing.assert_array_equal(recorder.embeddings, BOTH)
    with pytest.raises(InputError, match=r"e\.npy: 2 .*expected 4.*--teacher"):
        instances(recorder, BOTH[:2], space, source="e.npy")


def test_embeddings_that_the_method_refuses_are_told_with_their_file() -> None:
    broken = BOTH[:2].copy()
    broken[0, 1, 1] = np.nan
    clusterer = build_clusterer(chosen())
    with pytest.raises(ImageError, match=r"^e\.npy: .*1 "):
        instances(clusterer, broken, MODEL, source="e.npy")


@pytest.mark.parametrize("values", [np.array([[0, 9], [255, 0]], "uint8"), np.eye(2)[::-1] > 0])
def test_labels_and_masks_alike_are_foreground_where_they_are_above_0(
    values: np.ndarray, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "m.tif", values)
    expected = np.array([[False, True], [True, False]])
    np.testing.assert_array_equal(read_foreground(tmp_path / "m.tif", (2, 2)), expected)
    np.testing.assert_array_equal(read_foreground(tmp_path / "m.tif", (1, 2, 2)), expected[None])
    with pytest.raises(ImageError, match=r"m\.tif: .*\(2, 2\).*expected \(2, 3\)"):
        read_foreground(tmp_path / "m.tif", (2, 3))
