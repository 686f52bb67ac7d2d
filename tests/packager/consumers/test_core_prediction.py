"""bioimageio.core's placement, against what it predicts with a real package."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from bioimageio.core import PredictionPipeline, Sample, Tensor, create_prediction_pipeline
from bioimageio.spec import InvalidDescr, ValidationContext, build_description, load_description
from bioimageio.spec.model import v0_5

from packager.consumers import core
from packager.consumers.placement import DeclaredAxis, Placement, Refusal
from packager.consumers.stitch import Array, stitch
from tests.packager.conftest import disc_image


@contextmanager
def files_left_open() -> Iterator[None]:
    """The format's reader and core's TorchScript backend leave files to the garbage collector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


@pytest.fixture(scope="module")
def model(package: Path, tmp_path_factory: pytest.TempPathFactory) -> v0_5.ModelDescr:
    folder = tmp_path_factory.mktemp("unpacked")
    with ZipFile(package) as archive:
        archive.extractall(folder)
    with files_left_open():
        loaded = load_description(folder / "rdf.yaml", perform_io_checks=False)
    assert isinstance(loaded, v0_5.ModelDescr)
    return loaded


@pytest.fixture(scope="module")
def pipeline(model: v0_5.ModelDescr) -> Iterator[PredictionPipeline]:
    with files_left_open():
        pipeline = create_prediction_pipeline(model, weights_format="torchscript", devices=["cpu"])
        pipeline.load()
    yield pipeline
    pipeline.unload()


def declared(model: v0_5.ModelDescr) -> tuple[DeclaredAxis, ...]:
    axes = []
    for read, answered in zip(model.inputs[0].axes[-2:], model.outputs[0].axes[-2:], strict=True):
        assert isinstance(read.size, v0_5.ParameterizedSize)
        assert isinstance(answered, v0_5.SpaceOutputAxisWithHalo)
        axes.append(DeclaredAxis(read.size.min, read.size.step, answered.halo))
    return tuple(axes)


def sample_of(pipeline: PredictionPipeline, image: Array) -> Sample:
    tensor = Tensor(image[None], ("batch", "channel", "y", "x"))
    return Sample(members={pipeline.input_ids[0]: tensor}, stat={}, id=None)


def one_tile(pipeline: PredictionPipeline) -> Callable[[Array], Array]:
    """Core running one tile as it stands, without padding or cropping."""

    def run(raw: Array) -> Array:
        answer = pipeline.predict_sample_without_blocking(
            sample_of(pipeline, raw), skip_input_padding=True, skip_output_cropping=True
        )
        return answer.members[pipeline.output_ids[0]].to_numpy()[0]

    return run


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("shape", [(120, 136), (123, 139)])
def test_stitching_gives_what_core_predicts_block_by_block(
    model: v0_5.ModelDescr, pipeline: PredictionPipeline, shape: tuple[int, int], n: int
) -> None:
    image = disc_image(shape).astype(np.float32)[None]
    placement = core.place(declared(model), shape, n=n)
    assert isinstance(placement, Placement)
    assert len(placement) > 1
    expected = pipeline.predict_sample_with_blocking(sample_of(pipeline, image), ns=n)
    np.testing.assert_array_equal(
        stitch(one_tile(pipeline), image, placement).output,
        expected.members[pipeline.output_ids[0]].to_numpy()[0],
    )


def test_stitching_gives_what_core_predicts_in_one_pass(
    model: v0_5.ModelDescr, pipeline: PredictionPipeline
) -> None:
    shape = (120, 136)
    image = disc_image(shape).astype(np.float32)[None]
    placement = core.place_whole(declared(model), shape)
    assert isinstance(placement, Placement)
    assert len(placement) == 1
    expected = pipeline.predict_sample_without_blocking(sample_of(pipeline, image))
    np.testing.assert_array_equal(
        stitch(one_tile(pipeline), image, placement).output,
        expected.members[pipeline.output_ids[0]].to_numpy()[0],
    )


@pytest.mark.parametrize("n", [0, 1, 3, 10])
def test_the_number_of_blocks_is_what_core_announces(
    model: v0_5.ModelDescr, pipeline: PredictionPipeline, n: int
) -> None:
    """Also for n = 0, which core takes for "not given"."""
    sample = sample_of(pipeline, np.zeros((1, 300, 310), np.float32))
    announced, _ = pipeline.predict_sample_with_blocking_yield_intermediates(sample, ns=n)
    placement = core.place(declared(model), (300, 310), n=n)
    assert isinstance(placement, Placement)
    assert len(placement) == announced


def test_an_image_smaller_than_a_block_is_refused_as_core_refuses_it(
    model: v0_5.ModelDescr, pipeline: PredictionPipeline
) -> None:
    refusal = core.place(declared(model), (120, 136))
    assert isinstance(refusal, Refusal)
    assert refusal.how == "refuses"
    sample = sample_of(pipeline, np.zeros((1, 120, 136), np.float32))
    with pytest.raises(ValueError, match="smaller than block shape"):
        pipeline.predict_sample_with_blocking(sample)


@pytest.mark.parametrize(("more", "legal"), [(0, True), (1, False)])
def test_a_halo_that_uses_up_the_smallest_tile_is_refused_as_the_format_refuses_it(
    model: v0_5.ModelDescr, more: int, legal: bool
) -> None:
    content = model.model_dump(mode="json", exclude_unset=True)
    sizes = {axis.minimum for axis in declared(model)}
    halo = (min(sizes) - 1) // 2 + more
    for axis in content["outputs"][0]["axes"][-2:]:
        axis["halo"] = halo
    with ValidationContext(perform_io_checks=False, root=model.root):
        built = build_description(content)
    assert isinstance(built, InvalidDescr) == (not legal)
    axes = tuple(DeclaredAxis(a.minimum, a.step, halo) for a in declared(model))
    assert isinstance(core.place_whole(axes, (120, 136)), Refusal) == (not legal)
    assert isinstance(core.place(axes, (120, 136), n=1), Refusal) == (not legal)
