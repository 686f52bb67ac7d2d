"""Training with sparse supervision, from the configuration to the checkpoint, and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from training.adversary import Adversary
from training.config import TrainingConfig, load_config
from training.datasets import Sample
from training.fit import fit
from training.module import EmbeddingModule
from training.patches import Patches
from training.tuning import tune
from zoo_models.checkpoint import Checkpoint
from zoo_models.errors import CheckpointError

SPARSE = """
[supervision]
fraction = 0.2
seed = 1

[teacher]
kind = "KIND"
momentum = 0.5
"""


def sparse_config(
    config_file: Path, kind: str, more: str = "", *, steps: int = 4
) -> TrainingConfig:
    text = config_file.read_text().replace("max_steps = 4", f"max_steps = {steps}")
    config_file.write_text(text + SPARSE.replace("KIND", kind) + more)
    return load_config(config_file)


def shortened(config: TrainingConfig, steps: int) -> TrainingConfig:
    return config.model_copy(update={"run": config.run.model_copy(update={"max_steps": steps})})


def flat(state: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, so that every tensor and number in them has a name."""
    out: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, dict):
            out |= flat(value, f"{prefix}{name}.")
        else:
            out[f"{prefix}{name}"] = value
    return out


def test_ten_steps_with_a_fifth_of_the_labels_leave_a_checkpoint_of_the_student(
    config_file: Path, tmp_path: Path
) -> None:
    config = sparse_config(config_file, "momentum", steps=10)
    checkpoint = Checkpoint.load(fit(config, tmp_path / "run"))
    assert checkpoint.provenance["config"]["supervision"]["fraction"] == 0.2
    assert 0 <= checkpoint.provenance["validation"]["val/ap50"] <= 1
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=False)["state_dict"]
    assert set(checkpoint.weights) == set(checkpoint.network().state_dict())  # f alone
    head = "valid.head.weight", "teacher.network.head.weight"
    assert not torch.equal(state[f"network.{head[0]}"], state[head[1]])
    torch.testing.assert_close(state[f"network.{head[0]}"], state[head[1]], atol=0.01, rtol=0.1)
    metrics = (tmp_path / "run" / "csv" / "version_0" / "metrics.csv").read_text()
    for term in ("unlabeled_push", "consistency", "object", "pull"):
        assert f"train/{term}" in metrics


@pytest.mark.parametrize("kind", ["momentum", "trained"])
def test_a_kept_teacher_is_in_the_checkpoint_of_the_best_and_of_the_last_step(
    config_file: Path, tmp_path: Path, kind: str
) -> None:
    without = sparse_config(config_file, kind)
    config_file.write_text(config_file.read_text() + "keep = true\n")
    config = load_config(config_file)
    best = Checkpoint.load(fit(config, tmp_path / "run"))
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=False)["state_dict"]
    for checkpoint in (best, tune(tmp_path / "run", config)):
        assert checkpoint.teacher is not None
        assert checkpoint.teacher.keys() == checkpoint.weights.keys()
        head = checkpoint.teacher["valid.head.weight"]
        assert not torch.equal(head, checkpoint.weights["valid.head.weight"])
    assert torch.equal(head, state["teacher.network.head.weight"])  # of the tuned one
    assert tune(tmp_path / "run", without).teacher is None  # unasked


def test_a_teacher_is_only_kept_where_the_run_had_one(config_file: Path, tmp_path: Path) -> None:
    fit(load_config(config_file), tmp_path / "run")
    config_file.write_text(config_file.read_text() + "[teacher]\nkeep = true\n")
    with pytest.raises(CheckpointError, match="holds no teacher to keep"):
        tune(tmp_path / "run", load_config(config_file))


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("momentum", ""),
        ("trained", ""),
        ("dropout", "[loss]\nphase = 1.0\n"),
        ("shared", '[loss]\nadversarial = 0.1\nadversarial_warmup = 0\nobject_loss = "bce"\n'),
    ],
)
def test_a_resumed_run_ends_with_the_weights_of_an_undisturbed_one(
    config_file: Path, tmp_path: Path, kind: str, more: str
) -> None:
    """Those of the teacher and of the critic, and the critic's optimiser, too."""
    config = sparse_config(config_file, kind, more)
    fit(config, tmp_path / "whole")
    fit(shortened(config, 2), tmp_path / "cut")
    fit(config, tmp_path / "cut", resume=True)
    whole, cut = (
        flat(torch.load(tmp_path / name / "last.ckpt", weights_only=False)["state_dict"])
        for name in ("whole", "cut")
    )
    assert set(whole) == set(cut)
    assert any("teacher.network" in name for name in whole) == (kind in ("momentum", "trained"))
    assert any("exp_avg" in name for name in whole) == ("adversarial" in more)
    for name, value in whole.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, cut[name]), name
        else:
            assert value == cut[name], name


# ---- single steps ------------------------------------------------------------------------------


def module_of(config: TrainingConfig, monkeypatch: pytest.MonkeyPatch) -> EmbeddingModule:
    torch.manual_seed(0)
    module = EmbeddingModule(config, ())
    monkeypatch.setattr(module, "log", lambda *_, **__: None)  # no trainer
    monkeypatch.setattr(module, "log_dict", lambda *_, **__: None)
    return module


def batch_of(config: TrainingConfig) -> tuple[torch.Tensor, torch.Tensor]:
    labels = np.zeros((60, 60), np.int32)
    labels[10:20, 10:20], labels[30:45, 20:40] = 1, 2
    image = np.random.default_rng(0).random((1, 60, 60)).astype(np.float32) + labels
    patches = [Patches([Sample("s", image, labels)], config)[i] for i in range(2)]
    images, ids = (torch.stack(x) for x in zip(*patches, strict=True))
    return images, ids


def test_the_student_sees_the_first_view_and_the_teacher_the_second(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = sparse_config(config_file, "momentum")
    module, (views, labels) = module_of(config, monkeypatch).eval(), batch_of(config)
    assert module.teacher is not None
    with torch.no_grad():
        module.valid.head.weight *= 20  # type: ignore[union-attr, operator]
        module.teacher.network.head.weight *= 40  # type: ignore[union-attr, operator]
        student = module.valid(views[:, 0])
        teacher = module.teacher.network(views[:, 1])  # type: ignore[operator]
    torch.manual_seed(7)
    expected = config.embedding_loss(student, labels, teacher)
    assert expected["consistency"] > 0.01
    torch.manual_seed(7)
    swapped = module._terms(views.flip(1), labels)
    assert swapped["consistency"].item() != pytest.approx(expected["consistency"].item(), rel=0.01)
    torch.manual_seed(7)
    found = module._terms(views, labels)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-3, abs=1e-5), name


def test_only_training_steps_move_the_teacher(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = sparse_config(config_file, "momentum")
    module, batch = module_of(config, monkeypatch), batch_of(config)
    assert module.teacher is not None
    before = module.teacher.network.head.weight.clone()  # type: ignore[union-attr, operator]
    optimiser = module.configure_optimizers()["optimizer"]
    module.training_step(batch, 0).backward()
    optimiser.step()
    assert torch.equal(module.teacher.network.head.weight, before)  # type: ignore[union-attr, arg-type]
    module.on_train_batch_end()
    middle = (before + module.valid.head.weight) / 2  # type: ignore[operator, union-attr]
    torch.testing.assert_close(module.teacher.network.head.weight, middle)  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["momentum", "shared", "dropout", "trained"])
def test_only_a_trained_teacher_has_weights_in_the_optimiser(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    config = sparse_config(config_file, kind)
    module = module_of(config, monkeypatch)
    groups = module.configure_optimizers()["optimizer"].param_groups
    assert len(groups) == (2 if kind == "trained" else 1)
    student = list(module.network.parameters())
    assert all(a is b for a, b in zip(groups[0]["params"], student, strict=True))


def test_validation_knows_all_labels(config_file: Path) -> None:
    full = load_config(config_file)
    sparse = sparse_config(config_file, "momentum")
    assert sparse.validation_loss == full.validation_loss == full.embedding_loss
    assert sparse.embedding_loss.unlabeled == 0


def test_without_supervision_there_is_neither_teacher_nor_critic(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(config_file)
    module, (images, labels) = module_of(config, monkeypatch), batch_of(config)
    assert not [name for name in module.state_dict() if name.startswith(("teacher", "adversary"))]
    step = module.training_step((images, labels), 0)
    torch.manual_seed(config.seed * 1_000_003)
    channels_last = images.contiguous(memory_format=torch.channels_last)
    expected = config.embedding_loss(module.valid(channels_last), labels)
    assert torch.equal(step, expected["loss"])
    assert set(expected) == {"loss", "pull", "push", "regulariser", "object"}


def test_a_teacher_without_supervision_compares_views_of_fully_labeled_patches(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_file.write_text(config_file.read_text() + '[teacher]\nkind = "shared"\n')
    config = load_config(config_file)
    terms = module_of(config, monkeypatch)._terms(*batch_of(config))
    assert terms["consistency"] > 0
    assert "unlabeled_push" not in terms


def test_the_critic_learns_at_every_step_after_the_warm_up_and_is_heard_at_every_fifth() -> None:
    torch.manual_seed(0)
    adversary = Adversary(2, warmup=3)
    true = torch.zeros(3, 8, 8)
    true[:, 2:5, 2:5] = 1
    heard, learnt = [], []
    for step in range(13):
        before = adversary.critic.dense.weight.clone()
        soft = torch.rand(3, 8, 8, requires_grad=True)
        adversary(true, soft, step=step).backward()
        assert soft.grad is not None
        heard += [step] * bool(soft.grad.any())
        learnt += [step] * (not torch.equal(before, adversary.critic.dense.weight))
    assert learnt == list(range(3, 13))
    assert heard == [7, 12]
