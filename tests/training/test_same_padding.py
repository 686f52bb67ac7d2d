"""A same-padded network is trained as published, and its checkpoint predicts like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.config import TrainingConfig, load_config
from training.datasets import Sample
from training.fit import fit
from training.patches import Patches
from zoo_models.architectures.unet_same import UNetSame
from zoo_models.checkpoint import Checkpoint
from zoo_models.errors import ConfigError
from zoo_models.prediction.blocks import BlockGrid
from zoo_models.prediction.engine import predict_embeddings


@pytest.fixture
def same_file(config_file: Path) -> Path:
    text = config_file.read_text().replace("convolutions = 1\n", "")
    config_file.write_text(text.replace("[network]", '[network]\narchitecture = "unet_same"'))
    return config_file


def with_line(path: Path, section: str, line: str) -> Path:
    text = path.read_text()
    assert f"[{section}]" in text
    path.write_text(text.replace(f"[{section}]", f"[{section}]\n{line}"))
    return path


def with_output(path: Path, output: int) -> Path:
    path.write_text(path.read_text().replace("output = 36", f"output = {output}"))
    return path


def test_a_patch_reads_exactly_what_it_answers_for(same_file: Path) -> None:
    config = load_config(same_file)
    assert config.output_shape == config.input_shape == (36, 36)
    labels = np.ones((50, 60), np.int32)
    image = np.random.default_rng(0).normal(size=(1, 50, 60)).astype(np.float32)
    pixels, answer = Patches([Sample("a", image, labels)], config)[0]
    assert pixels.shape == (1, 36, 36)
    assert answer.shape == (36, 36)


@pytest.mark.parametrize("extra", ["", '\n[teacher]\nkind = "momentum"\n'])
def test_a_run_leaves_a_checkpoint_that_predicts_the_same_in_tiles_of_any_size(
    same_file: Path, tmp_path: Path, extra: str
) -> None:
    same_file.write_text(same_file.read_text() + extra)
    checkpoint = Checkpoint.load(fit(load_config(same_file), tmp_path / "run"))
    assert checkpoint.architecture == "unet_same"
    assert checkpoint.geometry.halo == (8, 8)
    network = checkpoint.network()
    assert isinstance(network, UNetSame)
    image = np.random.default_rng(1).uniform(0, 1, (1, 61, 90)).astype(np.float32)
    small, large = (
        predict_embeddings(
            network,
            image,
            BlockGrid.covering((61, 90), checkpoint.geometry, tile_limit=limit),
            embedding_dim=4,
        )
        for limit in (1, 1000)
    )
    assert np.abs(small - large).max() <= 1e-4 * large.std()


def test_it_is_trained_as_it_is(same_file: Path, tmp_path: Path) -> None:
    """Every step passes through the very network that is saved: no wrapper is around it."""
    config = load_config(same_file)
    weights = Checkpoint.load(fit(config, tmp_path / "run")).weights
    assert weights["decoder.0.3.num_batches_tracked"] == config.run.max_steps


@pytest.mark.parametrize(
    ("output", "message"),
    [(2, r"not larger than the period 2: .*at least 4"), (37, "use 36 or 38")],
)
def test_a_window_must_be_a_multiple_of_the_period_and_larger_than_it(
    same_file: Path, output: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(with_output(same_file, output))


@pytest.mark.parametrize(
    ("section", "line", "message"),
    [
        ("network", 'upsampling = "learnt"', "unet_same has no upsampling: leave out"),
        ("network", "local_radius = 4", "unet_same has no local_radius"),
        ("patch", "", "loss.phase is 0.5, but windows of unet_same differ"),
    ],
)
def test_what_a_same_padded_network_does_not_have_is_refused(
    same_file: Path, section: str, line: str, message: str
) -> None:
    if not line:
        same_file.write_text(same_file.read_text() + "\n[loss]\nphase = 0.5\n")
    with pytest.raises(ConfigError, match=message):
        load_config(with_line(same_file, section, line))


def test_a_group_norm_is_for_comparison_only(config_file: Path, same_file: Path) -> None:
    group = with_line(same_file, "network", 'norm = "group"')
    assert load_config(group).network_kwargs["norm"] == "group"
    config_file.write_text(group.read_text().replace("unet_same", "unet_valid"))
    with pytest.raises(ConfigError, match='unet_valid is there to be tiled: set norm to "batch"'):
        load_config(config_file)


def test_its_arguments_are_those_that_its_file_takes(same_file: Path) -> None:
    config: TrainingConfig = load_config(same_file)
    assert UNetSame(**config.network_kwargs).period == [2, 2]
