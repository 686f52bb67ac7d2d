"""One training run: configuration in, a folder with logs and a checkpoint out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader

from training import pseudo_background
from training.config import TrainingConfig
from training.datasets import Sample, read_data
from training.module import EmbeddingModule
from training.patches import EpochSampler, Patches
from training.progress.bar import Bar
from training.progress.pictures import choose
from training.progress.writer import ProgressWriter, remove_progress
from training.provenance import provenance
from training.sections import Split
from training.sparse import supervised
from zoo_models.checkpoint import Checkpoint, ClustererSettings
from zoo_models.errors import ConfigError, OutputExistsError

CHECKPOINT = "checkpoint.safetensors"
LAST = "last.ckpt"


def fit(
    config: TrainingConfig,
    run_dir: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Train and return the path of the checkpoint, written anew at every best validation AP@0.5.

    `progress` shows a bar with the loss, its terms and the validation scores. Without it nothing is
    printed; pictures, tables and the page index.html are written to `run_dir` either way.

    A run that was cut goes on with `resume`, from the end of its last whole epoch, and sees the
    same patches as an undisturbed one.

    Raises:
        OutputExistsError: `run_dir` holds a run and neither resume nor overwrite is given.
        ConfigError: both are given, or there is nothing to resume.
        ImageError: the data cannot be read.
    """
    last = run_dir / LAST
    _refuse_confusion(run_dir, resume=resume, overwrite=overwrite)
    train, val = read(config, "train"), read(config, "val")
    if config.supervision is not None:
        train = supervised(train, config.supervision)
    if config.run.validation_images:
        val = val[:: max(1, len(val) // config.run.validation_images)]
    lightning.seed_everything(config.seed, verbose=False)
    module = EmbeddingModule(config, val)
    if not resume:
        if config.transfer is not None:
            module.start_from(config.transfer)
        remove_progress(run_dir)
    if config.pseudo_background:
        train = _with_pseudo_background(train, config, run_dir, resume=resume, progress=progress)
    writers = [
        CheckpointWriter(config, run_dir / CHECKPOINT),
        ProgressWriter(config, run_dir, pictured=choose(val)),
        *([Bar()] if progress else []),
    ]
    trainer = _trainer(config, run_dir, writers)
    step = torch.load(last, weights_only=False)["global_step"] if resume else 0
    trainer.fit(
        module,
        _patch_loader(train, config, start=step * config.patch.batch),
        DataLoader(range(len(val)), batch_size=None),  # type: ignore[arg-type]
        ckpt_path=last if resume else None,
        weights_only=False if resume else None,
    )
    return run_dir / CHECKPOINT


def _with_pseudo_background(
    train: Sequence[Sample],
    config: TrainingConfig,
    run_dir: Path,
    *,
    resume: bool,
    progress: bool,
) -> tuple[Sample, ...]:
    """Found once: a resumed run goes on with what it began with, whatever became of the model."""
    if resume:
        masks = pseudo_background.load(run_dir, number=len(train))
    elif config.transfer is None:
        raise ConfigError(
            "supervision.pseudo_background needs a model that sees the background: name one that "
            "was trained with the same labels, [transfer] init, or --init."
        )
    else:
        assert config.supervision is not None
        model, gap = Checkpoint.load(Path(config.transfer.init)), config.supervision.gap
        masks = pseudo_background.find_background(
            train, model, config.normalisation, gap=gap, progress=progress
        )
        pseudo_background.save(masks, run_dir)
    return pseudo_background.with_background(train, masks)


def _refuse_confusion(run_dir: Path, *, resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise ConfigError("--resume goes on with a run, --overwrite starts it again: choose one.")
    if resume and not (run_dir / LAST).exists():
        raise ConfigError(
            f"{run_dir}: holds no run to resume ({LAST} is missing); leave --resume out."
        )
    existing = [name for name in (LAST, CHECKPOINT) if (run_dir / name).exists()]
    if existing and not (resume or overwrite):
        raise OutputExistsError(
            f"{run_dir} holds a run already ({existing[0]}): use --resume to go on with it, "
            "--overwrite to start again, or another --out."
        )


class CheckpointWriter(Callback):
    """Writes our checkpoint whenever validation AP@0.5 is at least as good as ever before."""

    def __init__(self, config: TrainingConfig, path: Path) -> None:
        self.config = config
        self.path = path
        self.best = -1.0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if "val/" in k}
        if metrics["val/ap50"] >= self.best:
            self.best = metrics["val/ap50"]
            assert isinstance(pl_module, EmbeddingModule)
            build_checkpoint(
                self.config, pl_module, step=trainer.global_step, metrics=metrics
            ).save(self.path, overwrite=True)


def build_checkpoint(
    config: TrainingConfig, module: EmbeddingModule, *, step: int, metrics: dict[str, float]
) -> Checkpoint:
    """The trained network with everything that is needed to run it and to trace where it is from.

    The configuration travels whole, except where the data lay on the training machine.
    """
    return Checkpoint(
        architecture=config.network.architecture,
        kwargs=config.network_kwargs,
        weights={k: v.detach().cpu().clone() for k, v in module.network.state_dict().items()},
        delta_v=config.loss.delta_v,
        delta_d=config.loss.delta_d,
        normalisation=config.normalisation,
        axes=config.data.axes,
        voxel_size_um=config.data.voxel_size_um,
        clusterer=ClustererSettings(
            config.clusterer.name,
            {"background": module.background, **config.clusterer_settings.settings},
        ),
        provenance={
            **provenance(config, module.source),
            "step": step,
            "validation": metrics,
        },
        teacher=module.kept_teacher,
    )


def read(config: TrainingConfig, split: Split) -> tuple[Sample, ...]:
    return read_data(config.data, split, channels=config.network.in_channels)


def _patch_loader(train: tuple[Sample, ...], config: TrainingConfig, *, start: int) -> Any:
    return DataLoader(
        Patches(train, config),
        batch_size=config.patch.batch,
        sampler=EpochSampler(config.run.epoch_steps * config.patch.batch, start=start),
        num_workers=config.run.workers,
        persistent_workers=config.run.workers > 0,
    )


def _trainer(
    config: TrainingConfig, run_dir: Path, writers: Sequence[Callback]
) -> lightning.Trainer:
    callbacks: list[Callback] = [
        *writers,
        ModelCheckpoint(run_dir, filename="last", enable_version_counter=False),
        LearningRateMonitor(),
    ]
    if config.run.early_stop:
        callbacks.append(EarlyStopping("val/loss", patience=config.run.early_stop))
    return lightning.Trainer(
        default_root_dir=run_dir,
        max_steps=config.run.max_steps,
        max_epochs=-1,  # the steps decide
        precision=config.run.precision,
        devices=config.run.devices,
        callbacks=callbacks,
        logger=[CSVLogger(run_dir, "csv"), TensorBoardLogger(run_dir, "tensorboard", "")],
        num_sanity_val_steps=0,
        log_every_n_steps=25,
        gradient_clip_val=1.0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        enable_progress_bar=False,  # Lightning's; ours is a callback
    )
