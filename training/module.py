"""The Lightning module: one network, one loss, whole-image validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau

from training.config import TrainingConfig
from training.datasets import Sample
from training.losses.phase_consistency import draw_shift, phase_consistency, with_shifted
from zoo_models.checkpoint import build_network
from zoo_models.geometry import TileGeometry
from zoo_models.metrics import score
from zoo_models.postprocessing import build_clusterer
from zoo_models.prediction.blocks import BlockGrid
from zoo_models.prediction.engine import TILE_LIMIT, predict_embeddings


class EmbeddingModule(lightning.LightningModule):
    """Trains the valid network inside its same-size wrapper; validates the wrapper in tiles."""

    def __init__(self, config: TrainingConfig, validation: Sequence[Sample]) -> None:
        super().__init__()
        self.config = config
        self.validation = validation
        self.network = build_network(config.network.architecture, config.network_kwargs)
        if config.ndim == 2:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        valid: Any = self.network.valid
        self._train_on = torch.compile(valid) if config.run.compile else valid
        self.loss = config.embedding_loss
        self.geometry = TileGeometry.from_network(config.network_axes)
        self.clusterer = build_clusterer(config.clusterer_settings)
        self._backgrounds: list[NDArray[np.float32]] = []

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        # random anchors and shifts depend on the step only, so a resumed run draws the same ones
        torch.manual_seed(self.config.seed * 1_000_003 + self.global_step)
        images, labels = batch
        terms = self._terms(images, labels)
        self.log_dict({f"train/{k}": v.detach() for k, v in terms.items()}, on_epoch=True)
        self.log("loss", terms["loss"].detach(), prog_bar=True, logger=False)
        return terms["loss"]

    def _terms(self, patches: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The loss and its terms; with the phase term the batch has a shifted sample more."""
        weight = self.config.loss.phase
        if not weight:
            return self.loss(self._run(patches), labels)
        shift = draw_shift(self.config.period)
        embeddings = self._run(with_shifted(patches, self.config.input_shape, shift))
        terms = self.loss(embeddings[:-1], labels)
        phase = phase_consistency(embeddings[0], embeddings[-1], shift)
        return {**terms, "phase": phase, "loss": terms["loss"] + weight * phase}

    def _run(self, images: Tensor) -> Tensor:
        if self.config.ndim == 2:
            images = images.contiguous(memory_format=torch.channels_last)
        embeddings: Tensor = self._train_on(images)
        return embeddings

    def validation_step(self, number: int, index: int) -> None:
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
        scores = score(self.clusterer(embeddings), sample.labels)
        self._log_mean("val/ap50", scores.ap50)
        self._log_mean("val/sbd", scores.sbd)
        self._log_mean("val/dic", scores.dic)
        middle = tuple(
            slice((n - min(n, w)) // 2, (n + min(n, w)) // 2)
            for n, w in zip(sample.labels.shape, self.config.output_shape, strict=True)
        )
        terms = self.loss(
            torch.from_numpy(np.ascontiguousarray(embeddings[:, *middle]))[None],
            torch.from_numpy(sample.labels[middle].astype(np.int64))[None],
        )
        self._log_mean("val/loss", float(terms["loss"]))

    def on_validation_epoch_start(self) -> None:
        self._backgrounds.clear()

    @property
    def background(self) -> list[float]:
        """Median over the validation images of their mean background embedding, D values.

        Nothing in the loss asks for it, but networks map the background of all images to one
        place; empty when no image has background.
        """
        if not self._backgrounds:
            return []
        return [round(float(v), 4) for v in np.median(self._backgrounds, axis=0)]

    def _log_mean(self, name: str, value: float) -> None:
        shown = name in ("val/ap50", "val/sbd")
        self.log(name, value, batch_size=1, prog_bar=shown, sync_dist=True)

    def configure_optimizers(self) -> Any:
        section = self.config.optimiser
        optimiser = torch.optim.Adam(
            self.parameters(), lr=section.lr, weight_decay=section.weight_decay
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
