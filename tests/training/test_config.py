"""A configuration is refused with all that is wrong in it, in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.config import load_config
from zoo_models.errors import ConfigError


def test_a_good_configuration_gives_windows_and_a_full_set_of_network_arguments(
    config_file: Path,
) -> None:
    config = load_config(config_file)
    assert config.output_shape == (36, 36)
    assert config.input_shape == (44, 44)  # 1 level, 1 convolution: 2c = 2 * (2 + 2) = 8
    assert config.network_kwargs["kernel"] == 3
    assert Path(config.data.folder) == config_file.parent / "data"


@pytest.mark.parametrize("output", [1, 2])
def test_a_window_not_larger_than_the_period_is_refused_with_the_reason(
    config_file: Path, output: int
) -> None:
    text = config_file.read_text().replace("output = 36", f"output = {output}")
    config_file.write_text(text)
    with pytest.raises(ConfigError, match=r"not larger than the period 2: .*at least 4"):
        load_config(config_file)


def test_a_window_that_is_no_output_size_is_refused_with_the_sizes_that_are(
    config_file: Path,
) -> None:
    config_file.write_text(config_file.read_text().replace("output = 36", "output = 37"))
    with pytest.raises(ConfigError, match="use 36 or 38"):
        load_config(config_file)


def test_every_mistake_is_named_at_once(config_file: Path) -> None:
    text = config_file.read_text().replace("width = 4", 'width = "wide"')
    config_file.write_text(text + "colour = 1\n")
    with pytest.raises(ConfigError, match=r"network\.width: .*run\.colour: ") as caught:
        load_config(config_file)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_file_that_is_no_toml_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("name = [")
    with pytest.raises(ConfigError, match="not a TOML file"):
        load_config(tmp_path / "broken.toml")


def test_the_data_folder_can_be_given_from_outside(config_file: Path, tmp_path: Path) -> None:
    assert load_config(config_file, data=tmp_path).data.folder == str(tmp_path)


def test_label_0_may_be_ignored_but_then_it_is_nothing_else(config_file: Path) -> None:
    text = config_file.read_text()
    config_file.write_text(text + "\n[loss]\nignore = 0\n")
    assert load_config(config_file).embedding_loss.ignore == 0
    for more in ("\n[supervision]\nfraction = 0.5\n", "adversarial = 1\nadversarial_warmup = 1\n"):
        config_file.write_text(text + "\n[loss]\nignore = 0\n" + more)
        with pytest.raises(ConfigError, match=r"loss\.ignore is given with .*leave one"):
            load_config(config_file)
    config_file.write_text(text + "\n[loss]\nignore = 3\n")
    with pytest.raises(ConfigError, match=r"loss\.ignore: .*0"):
        load_config(config_file)


@pytest.mark.parametrize("other", ["[supervision]\nfraction = 0.5", "[loss]\nignore = 0"])
def test_a_rim_needs_a_labeled_background(config_file: Path, other: str) -> None:
    text = config_file.read_text()
    loss = "[loss]\nrim = 1.0\n"
    assert "[loss]" not in text
    other = other.replace("[loss]\n", "")
    config_file.write_text(f"{text}\n{loss}{other}\n")
    with pytest.raises(ConfigError, match=r"loss\.rim is 1\.0 .* leave one of the two out"):
        load_config(config_file)
