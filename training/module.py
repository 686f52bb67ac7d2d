"""The Lightning module: one network, one loss, whole-image validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau

from training.adversary import Adversary
from training.config import TrainingConfig
from training.datasets import Sample
from training.losses.adversarial import mask_pairs
from training.losses.phase_consistency import draw_shift, phase_consistency, with_shifted
from training.sections import TeacherSection, TransferSection
from training.teacher import Momentum, Trained, build_teacher, named_as_in
from training.transfer import Source, start_from
from zoo_models.checkpoint import answering_part, build_network
from zoo_models.errors import ConfigError
from zoo_models.geometry import TileGeometry
from zoo_models.metrics import score
from zoo_models.postprocessing import build_clusterer
from zoo_models.prediction.blocks import BlockGrid
from zoo_models.prediction.engine import TILE_LIMIT, predict_embeddings


@dataclass(frozen=True, eq=False)
class Prediction:
    """What validation found in one image: handed to the callbacks, kept by nobody else.

    embeddings: D(z)yx float32; instances: (z)yx integers, 0 is background.
    """

    sample: Sample
    embeddings: NDArray[np.float32]
    instances: NDArray[np.integer]


def background_place(means: Sequence[NDArray[np.float32]]) -> list[float]:
    """Median over images of their mean background embeddings (D,), D values.

    Nothing in the loss asks for it, but networks map the background of all images to one place;
    empty when no image has background.
    """
    return [round(float(v), 4) for v in np.median(means, axis=0)] if means else []


class EmbeddingModule(lightning.LightningModule):
    """Trains the network inside its same-size wrapper, if any; validates the wrapper in tiles."""

    def __init__(self, config: TrainingConfig, validation: Sequence[Sample]) -> None:
        super().__init__()
        self.config = config
        self.validation = validation
        self.network = build_network(config.network.architecture, config.network_kwargs)
        if config.ndim == 2:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._train_on: Any = torch.compile(self.valid) if config.run.compile else self.valid
        section = config.teacher or TeacherSection()
        self.teacher = build_teacher(section, self.valid) if config.with_teacher else None
        self.adversary = (
            Adversary(config.ndim, warmup=config.loss.adversarial_warmup)
            if config.loss.adversarial
            else None
        )
        self.loss = config.embedding_loss
        self.validation_loss = config.validation_loss
        self.geometry = TileGeometry.from_network(config.network_axes)
        self.clusterer = build_clusterer(config.clusterer_settings)
        self.source: Source | None = None
        self._backgrounds: list[NDArray[np.float32]] = []

    def start_from(self, section: TransferSection) -> None:
        """Take the weights of a checkpoint; the teacher, too, begins with them."""
        self.source = start_from(self.network, section)
        if self.teacher is not None:
            self.teacher.start_from(self.valid)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["source"] = None if self.source is None else asdict(self.source)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A resumed run keeps the record of its start: the file may be another by now, or gone."""
        source = checkpoint.get("source")
        if self.config.transfer is not None and source is None:
            raise ConfigError(
                f"found [transfer] init = {self.config.transfer.init} for a run that began with "
                "random weights: leave it out to go on with the run, or start a new one."
            )
        self.source = None if source is None else Source(**source)

    def on_fit_start(self) -> None:
        if self.adversary is not None and self.trainer.world_size > 1:
            raise ConfigError(
                f"loss.adversarial with {self.trainer.world_size} processes: each would train a "
                "critic of its own; set run.devices to 1 or leave the term out."
            )

    @property
    def valid(self) -> torch.nn.Module:
        """The network without its same-size wrapper, if it has one: what is trained."""
        return answering_part(self.network)

    @property
    def kept_teacher(self) -> dict[str, Tensor] | None:
        """The teacher's weights as the checkpoint is to hold them, where it is."""
        if not (self.config.keeps_teacher and isinstance(self.teacher, Momentum | Trained)):
            return None
        return named_as_in(self.network, self.teacher.network.state_dict())

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        # random anchors and shifts depend on the step only, so a resumed run draws the same ones
        torch.manual_seed(self.config.seed * 1_000_003 + self.global_step)
        images, labels = batch
        terms = self._terms(images, labels)
        self.log_dict({f"train/{k}": v.detach() for k, v in terms.items()}, on_epoch=True)
        return terms["loss"]

    def _terms(self, patches: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The loss and its terms; with the phase term the batch has a shifted sample more."""
        weights = self.config.loss
        views = patches.unbind(1) if self.teacher is not None else (patches,)
        teacher = self._teach(views[1]) if self.teacher is not None else None
        shift = draw_shift(self.config.period) if weights.phase else None
        window = self.config.input_shape
        embeddings = self._run(views[0] if shift is None else with_shifted(views[0], window, shift))
        main = embeddings[: len(labels)]
        terms = self.loss(main, labels, teacher)
        if shift is not None:
            phase = phase_consistency(embeddings[0], embeddings[-1], shift)
            terms = {**terms, "phase": phase, "loss": terms["loss"] + weights.phase * phase}
        if self.adversary is not None:
            judged = self._judge(main, labels)
            loss = terms["loss"] + weights.adversarial * judged
            terms = {**terms, "adversarial": judged, "loss": loss}
        return terms

    def _judge(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The adversarial term, and a step of the critic."""
        assert self.adversary is not None
        margins = {"delta_v": self.loss.delta_v, "t": self.loss.t}
        with torch.autocast(embeddings.device.type, enabled=False):
            pairs = [
                mask_pairs(e, y, unlabeled=self.loss.unlabeled, **margins)
                for e, y in zip(embeddings, labels, strict=True)
            ]
            true, soft = (torch.cat(masks) for masks in zip(*pairs, strict=True))
            term: Tensor = self.adversary(true, soft, step=self.global_step)
        return term

    def _run(self, images: Tensor) -> Tensor:
        embeddings: Tensor = self._train_on(self._laid_out(images))
        return embeddings

    def _teach(self, images: Tensor) -> Tensor:
        """The teacher's embeddings of the window that the labels belong to."""
        assert self.teacher is not None
        main = tuple(slice(0, w) for w in self.config.input_shape)
        embeddings: Tensor = self.teacher(self._laid_out(images[:, :, *main]), self.valid)
        return embeddings

    def _laid_out(self, images: Tensor) -> Tensor:
        if self.config.ndim == 2:
            return images.contiguous(memory_format=torch.channels_last)
        return images

    def on_train_batch_end(self, *_: Any) -> None:
        if self.teacher is not None:
            self.teacher.after_step(self.valid)

    def validation_step(self, number: int, index: int) -> dict[str, Prediction]:
        """Whole image: tiles, clustering, scores; the loss on a window in its middle."""
        sample = self.validation[number]
        grid = BlockGrid.covering(
            sample.labels.shape, self.geometry, tile_limit=TILE_LIMIT[self.config.ndim]
        )
        embeddings = predict_embeddings(
            self.network,
            sample.image,
            grid,
            embedding_dim=self.config.network.embedding_dim,
            device=str(self.device),
        )
        outside = sample.labels == 0
        if outside.any():
            self._backgrounds.append(embeddings[:, outside].mean(axis=1))
        instances = self.clusterer(embeddings)
        scores = score(instances, sample.labels)
        self._log_mean("val/ap50", scores.ap50)
        self._log_mean("val/sbd", scores.sbd)
        self._log_mean("val/dic", scores.dic)
        middle = tuple(
            slice((n - min(n, w)) // 2, (n + min(n, w)) // 2)
            for n, w in zip(sample.labels.shape, self.config.output_shape, strict=True)
        )
        terms = self.validation_loss(
            torch.from_numpy(np.ascontiguousarray(embeddings[:, *middle]))[None],
            torch.from_numpy(sample.labels[middle].astype(np.int64))[None],
        )
        self._log_mean("val/loss", float(terms["loss"]))
        return {"prediction": Prediction(sample, embeddings, instances)}

    def on_validation_epoch_start(self) -> None:
        self._backgrounds.clear()

    @property
    def background(self) -> list[float]:
        """See `background_place`; of the last validation."""
        return background_place(self._backgrounds)

    def _log_mean(self, name: str, value: float) -> None:
        self.log(name, value, batch_size=1, sync_dist=True)

    def configure_optimizers(self) -> Any:
        section = self.config.optimiser
        groups = [{"params": list(self.network.parameters())}]
        if isinstance(self.teacher, Trained):
            groups.append({"params": list(self.teacher.parameters())})
        optimiser = torch.optim.Adam(
            groups, lr=self.config.learning_rate, weight_decay=section.weight_decay
        )
        if section.schedule == "cosine":
            schedule: Any = CosineAnnealingLR(optimiser, self.config.run.max_steps)
            return {
                "optimizer": optimiser,
                "lr_scheduler": {"scheduler": schedule, "interval": "step"},
            }
        schedule = ReduceLROnPlateau(optimiser, factor=0.2, patience=section.patience, min_lr=1e-6)
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "monitor": "val/loss", "interval": "epoch"},
        }
