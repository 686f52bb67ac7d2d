"""The phase term against NumPy, on networks that have a phase and networks that have none."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view

from training.config import TrainingConfig, load_config
from training.datasets import Sample
from training.losses.phase_consistency import (
    draw_shift,
    phase_consistency,
    reach,
    with_shifted,
)
from training.module import EmbeddingModule
from training.patches import Patches
from zoo_models.architectures.unet_valid import UNetValid
from zoo_models.errors import ConfigError


def tiny(levels: int = 1, **more: object) -> UNetValid:
    arguments = {"embedding_dim": 2, "width": 6, "convolutions": 1, "norm": "none", **more}
    torch.manual_seed(1)
    return UNetValid(levels=levels, **arguments)  # type: ignore[arg-type]


def window_of(network: UNetValid, answer: int) -> tuple[int, ...]:
    """The smallest valid input that is answered by at least `answer` pixels along every axis."""
    sizes = zip(network.shrink, network.residue, network.period, strict=True)
    return tuple(least + (r - least) % p for c, r, p in sizes for least in [answer + 2 * c])


def term_of(
    network: UNetValid, patches: torch.Tensor, window: Sequence[int], shift: Sequence[int]
) -> torch.Tensor:
    out = network(with_shifted(patches, window, shift))
    return phase_consistency(out[0], out[-1], shift)


def numpy_convolution(x: np.ndarray, layer: torch.nn.Module) -> np.ndarray:
    """Valid, x (C, Y, X) float64."""
    weight, bias = (p.detach().double().numpy() for p in layer.parameters())
    views = sliding_window_view(x, weight.shape[2:], axis=(1, 2))
    return np.einsum("cyxij,ocij->oyx", views, weight) + bias[:, None, None]


def numpy_network(x: np.ndarray, network: UNetValid) -> np.ndarray:
    """One level, one 3x3 convolution per block, learnt upsampling by 2."""
    first, second = network.encoder
    skip = np.maximum(numpy_convolution(x, first[0]), 0)  # type: ignore[index]
    c, y, x_ = skip.shape
    pooled = skip.reshape(c, y // 2, 2, x_ // 2, 2).max(axis=(2, 4))
    deep = np.maximum(numpy_convolution(pooled, second[0]), 0)  # type: ignore[index]
    up = network.up[0].enlarge
    weight, bias = (p.detach().double().numpy() for p in up.parameters())  # type: ignore[union-attr]
    wide = np.einsum("cyx,coij->oyixj", deep, weight)
    wide = wide.reshape(weight.shape[1], 2 * deep.shape[1], 2 * deep.shape[2])
    both = np.concatenate([skip[:, 2:-2, 2:-2], wide + bias[:, None, None]])
    last = np.maximum(numpy_convolution(both, network.decoder[0][0]), 0)  # type: ignore[index]
    return numpy_convolution(last, network.head)


@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (1, 1)])
def test_the_term_is_the_mean_squared_distance_of_the_same_pixels(shift: tuple[int, int]) -> None:
    network, image = tiny(), np.random.default_rng(0).normal(size=(1, 19, 21))
    window = (18, 20)
    first = numpy_network(image[:, :18, :20], network)
    dy, dx = shift
    second = numpy_network(image[:, dy : dy + 18, dx : dx + 20], network)
    pairs = [  # pixel y, x of the first answer is y - dy, x - dx of the second
        ((first[:, y, x] - second[:, y - dy, x - dx]) ** 2).sum()
        for y in range(dy, first.shape[1])
        for x in range(dx, first.shape[2])
    ]
    term = term_of(network, torch.from_numpy(image)[None].float(), window, shift)
    assert len(pairs) == (10 - dy) * (12 - dx)
    assert term.item() == pytest.approx(np.mean(pairs), rel=1e-4)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_network_without_pooling_has_no_phase_also_in_training(norm: str) -> None:
    """With batch norm too: both windows are normalised by the same statistics."""
    network = tiny(levels=0, norm=norm, kernel=5).train()
    patches = torch.randn(2, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    for shift in ((0, 1), (3, 2)):
        assert term_of(network, patches, (16, 16), shift).item() < 1e-10


@pytest.mark.parametrize("upsampling", ["learnt", "nearest"])
@pytest.mark.parametrize("levels", [1, 2])
def test_a_network_with_pooling_has_a_phase_at_every_shift_but_whole_periods(
    levels: int, upsampling: str
) -> None:
    network = tiny(levels=levels, upsampling=upsampling)
    period, window = network.period, window_of(network, 2 * network.period[0])
    size = [w + p for w, p in zip(window, period, strict=True)]
    patches = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(0))
    for shift in itertools.product(*(range(p + 1) for p in period)):
        term = term_of(network, patches, window, shift).item()
        if all(s % p == 0 for s, p in zip(shift, period, strict=True)):
            assert term < 1e-11
        else:
            assert term > 1e-8


def test_a_3d_network_that_pools_in_plane_only_is_shifted_in_plane_only() -> None:
    network = tiny(ndim=3, factor=[1, 2, 2], kernel=[1, 3, 3])
    assert reach(network.period) == (0, 1, 1)
    torch.manual_seed(0)
    assert {draw_shift(network.period) for _ in range(50)} == {(0, 0, 1), (0, 1, 0), (0, 1, 1)}
    window = (3, *window_of(network, 6)[1:])
    patch = torch.randn(1, 1, 3, window[1] + 1, window[2] + 1)
    first = network(patch[..., : window[1], : window[2]])[0]
    second = network(patch[..., : window[1], 1:])[0]
    expected = ((first[..., 1:] - second[..., :-1]) ** 2).sum(0).mean()
    assert term_of(network, patch, window, (0, 0, 1)).item() == pytest.approx(expected.item())
    assert expected > 1e-6


def test_all_shifts_below_the_period_but_none_are_drawn_equally_often() -> None:
    torch.manual_seed(0)
    drawn = [draw_shift((2, 4)) for _ in range(3500)]
    counts = [drawn.count(s) for s in itertools.product(range(2), range(4))]
    assert counts[0] == 0
    assert all(420 < n < 580 for n in counts[1:])  # 500 +- 4 standard deviations


def test_gradients_reach_the_network_through_both_windows() -> None:
    main, shifted = (torch.randn(2, 6, 6, requires_grad=True) for _ in range(2))
    phase_consistency(main, shifted, (1, 2)).backward()
    assert main.grad is not None
    assert shifted.grad is not None
    assert torch.equal(main.grad[:, 1:, 2:], -shifted.grad[:, :-1, :-2])
    assert (main.grad[:, 1:, 2:] != 0).all()
    assert (main.grad[:, :1] == 0).all()  # not in both windows


# ---- in training -------------------------------------------------------------------------------


def with_phase(config_file: Path, weight: float) -> TrainingConfig:
    """Two levels, so that P = 4; window 42 -> 22; no augmentation."""
    text = config_file.read_text().replace("levels = 1", "levels = 2")
    text = text.replace("output = 36", "output = 22")
    off = "flip = false\nrotate = false\naffine = 0\nelastic = 0\nnoise = 0\nblur = 0\noffset = 0\n"
    more = "gain = [1, 1]\ngamma = [1, 1]\n"
    config_file.write_text(f"{text}\n[augmentation]\n{off}{more}\n[loss]\nphase = {weight}\n")
    return load_config(config_file)


def blobs(seed: int = 0) -> Sample:
    """55 x 46 pixels, instances up to 2 from the border; the image tells each pixel's label."""
    labels = np.zeros((55, 46), np.int32)
    for number, (y, x) in enumerate(itertools.product(range(2, 55, 9), range(2, 46, 9)), start=1):
        labels[y : y + 6, x : x + 6] = number
    noise = np.random.default_rng(seed).uniform(0, 0.4, labels.shape)
    return Sample("blobs", (labels + noise)[None].astype(np.float32), labels)


def valid(module: EmbeddingModule, images: torch.Tensor) -> torch.Tensor:
    network = module.network.valid
    assert isinstance(network, UNetValid)
    answer: torch.Tensor = network(images)
    return answer


def module_of(config: TrainingConfig, monkeypatch: pytest.MonkeyPatch) -> EmbeddingModule:
    torch.manual_seed(0)
    module = EmbeddingModule(config, ())
    monkeypatch.setattr(module, "log", lambda *_, **__: None)  # no trainer
    monkeypatch.setattr(module, "log_dict", lambda *_, **__: None)
    return module


def batch_of(config: TrainingConfig) -> tuple[torch.Tensor, torch.Tensor]:
    patches = [Patches([blobs()], config)[i] for i in range(2)]
    images, labels = (torch.stack(x) for x in zip(*patches, strict=True))
    return images, labels


def test_patches_are_those_without_the_term_but_wider_at_their_end(config_file: Path) -> None:
    plain = with_phase(config_file, 0.0)
    loss = plain.loss.model_copy(update={"phase": 1.0})
    usual, wider = (Patches([blobs()], c) for c in (plain, plain.model_copy(update={"loss": loss})))
    height, width = plain.input_shape
    for number in range(100):
        (image, labels), (wide_image, wide_labels) = usual[number], wider[number]
        assert wide_image.shape == (1, height + 3, width + 3)
        assert torch.equal(wide_image[:, :height, :width], image)
        pairs = torch.stack([labels.flatten(), wide_labels.flatten()]).unique(dim=1)
        assert pairs.shape[1] == len(labels.unique()) == len(wide_labels.unique())


def test_weight_0_trains_as_if_the_term_did_not_exist(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_phase(config_file, 0.0)
    module, (images, labels) = module_of(config, monkeypatch), batch_of(config)
    assert images.shape[2:] == config.input_shape
    step = module.training_step((images, labels), 0)
    torch.manual_seed(config.seed * 1_000_003)
    channels_last = images.contiguous(memory_format=torch.channels_last)
    expected = config.embedding_loss(valid(module, channels_last), labels)
    assert torch.equal(step, expected["loss"])
    assert "phase" not in module._terms(images, labels)


def test_the_shift_depends_on_the_seed_and_the_step_only(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_phase(config_file, 1.0)
    module, batch = module_of(config, monkeypatch).eval(), batch_of(config)
    first = module.training_step(batch, 0)
    torch.manual_seed(99)
    assert torch.equal(first, module.training_step(batch, 0))
    other = config.model_copy(update={"seed": 4})
    monkeypatch.setattr(module, "config", other)
    assert not torch.equal(first, module.training_step(batch, 0))


def test_the_loss_is_that_of_the_main_windows_and_the_weighted_term(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_phase(config_file, 3.0)
    module, (images, labels) = module_of(config, monkeypatch).eval(), batch_of(config)
    torch.manual_seed(5)
    terms = module._terms(images, labels)
    torch.manual_seed(5)
    draw_shift(config.period)
    height, width = config.input_shape
    main = config.embedding_loss(valid(module, images[:, :, :height, :width]), labels)
    assert terms["phase"] > 0
    expected = main["loss"] + 3 * terms["phase"]
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_training_with_the_term_makes_predictions_less_dependent_on_the_phase(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Squared differences in units of the embeddings' variance: shrinking them all is no way."""
    config = with_phase(config_file, 0.0)
    assert _difference_after_training(config, monkeypatch, weight=10.0) < 0.5 * (
        _difference_after_training(config, monkeypatch, weight=0.0)
    )


def _difference_after_training(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch, *, weight: float
) -> float:
    loss = config.loss.model_copy(update={"phase": weight})
    config = config.model_copy(update={"loss": loss})
    module, (images, labels) = module_of(config, monkeypatch), batch_of(config)
    images = images / 50
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-2)
    for step in range(40):
        torch.manual_seed(step)
        optimiser.zero_grad()
        module._terms(images, labels)["loss"].backward()
        optimiser.step()
    module.eval()
    with torch.no_grad():
        whole = valid(module, images[:1, :, :42, :42])[0]
        part = valid(module, images[:1, :, 1:39, 2:40])[0]
    height, width = part.shape[1:]
    same = whole[:, 1 : 1 + height, 2 : 2 + width]
    return float(((same - part) ** 2).mean() / whole.var())


def test_a_network_without_period_is_refused_the_term(config_file: Path) -> None:
    text = config_file.read_text().replace("levels = 1", "levels = 0")
    config_file.write_text(text + "[loss]\nphase = 0.5\n")
    with pytest.raises(ConfigError, match=r"loss\.phase is 0\.5, .*leave loss\.phase out"):
        load_config(config_file)
