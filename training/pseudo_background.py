"""A background for sparse labels: where a model that was trained with them sees no object.

Under sparse supervision the background is unlabeled like most objects, and what is known of it is
only that labeled objects differ from it. A first model finds most of it nevertheless, and finds it
more surely than it tells objects apart. So a second run takes it as labeled::

    labels            prediction         labels of the second run
    . . . . . . .     . . . . . . .      b b b b ? ? ?      A  a labeled object
    . A A . . . .     . 1 1 . . 2 2      b A A b ? ? ?      b  background
    . A A . . . .     . 1 . . . 2 2      b A A b ? ? ?      ?  unknown, in no term of the loss
    . . . . . . .     . . . . . . .      b b b b ? ? ?

Objects without a label are unknown, and a `gap` around them, here of one pixel: their outline is
the first model's guess. That of a labeled object is known.

Self-training with pseudo-labels (Lee, ICML workshop 2013), of the background alone. Pseudo-labels
of objects, too, were no help for nuclei: docs/decisions/0016-pseudo-background.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from scipy import ndimage

from training.datasets import Sample
from training.embedding import embeddings_of
from zoo_models.checkpoint import Checkpoint, Normalisation
from zoo_models.errors import ConfigError
from zoo_models.postprocessing import build_clusterer

Mask = NDArray[np.bool_]

FILE = "pseudo_background.npz"
"""In the folder of a run: what it was trained with, and what a resumed one goes on with."""


def find_background(
    samples: Sequence[Sample],
    checkpoint: Checkpoint,
    normalisation: Normalisation,
    *,
    gap: int,
    progress: bool = False,
) -> list[Mask]:
    """A mask (z)yx for each sample: see above. Unlabeled pixels only.

    normalisation: that of the samples, which must be the checkpoint's.
    gap: pixels around each predicted object without a label that are left unknown.
    progress: shows a bar; hundreds of images take minutes.

    Raises:
        ConfigError: another normalisation, or a model that sees no background in any sample.
    """
    if normalisation != checkpoint.normalisation:
        raise ConfigError(
            "supervision.pseudo_background: [data] has "
            f"gain {normalisation.gain} and offset {normalisation.offset}, expected the gain "
            f"{checkpoint.normalisation.gain} and the offset {checkpoint.normalisation.offset} of "
            "the model of [transfer], which reads the same images."
        )
    clusterer, number = build_clusterer(checkpoint.clusterer), len(samples)
    found = track(
        embeddings_of(checkpoint, samples),
        "finding the background",
        total=number,
        disable=not progress,
    )
    masks = [
        sure_background(clusterer(embeddings), sample.labels, gap=gap)
        for embeddings, sample in zip(found, samples, strict=True)
    ]
    if not any(mask.any() for mask in masks):
        raise ConfigError(
            f"supervision.pseudo_background: the model of [transfer] sees no background in any of "
            f"{number} images; choose its clusterer's settings first (spoco-zoo tune)."
        )
    return masks


def sure_background(predicted: NDArray[np.integer], labels: NDArray[np.int32], *, gap: int) -> Mask:
    """Pixels (z)yx that are in no object, neither labeled nor predicted, nor within `gap` pixels,
    over corners too, of a predicted object that holds no labeled pixel. 0 is no object."""
    known = np.unique(predicted[labels > 0])
    guessed = (predicted > 0) & ~np.isin(predicted, known)
    if gap:
        square = ndimage.generate_binary_structure(labels.ndim, labels.ndim)
        guessed = ndimage.binary_dilation(guessed, square, iterations=gap)
    mask: Mask = (predicted == 0) & (labels == 0) & ~guessed
    return mask


def with_background(samples: Sequence[Sample], masks: Sequence[Mask]) -> tuple[Sample, ...]:
    """The samples with one more instance, their background; 0 is then what nobody knows."""
    return tuple(
        replace(s, labels=np.where(mask, s.labels.max() + 1, s.labels))
        for s, mask in zip(samples, masks, strict=True)
    )


def save(masks: Sequence[Mask], run_dir: Path) -> None:
    run_dir.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(run_dir / FILE, *masks)


def load(run_dir: Path, *, number: int) -> list[Mask]:
    """The masks of a run that is resumed, in the order of its samples.

    Raises:
        ConfigError: the run has none, or of another number of samples.
    """
    path = run_dir / FILE
    if not path.exists():
        raise ConfigError(
            f"{path}: not found; the run began without supervision.pseudo_background: leave it "
            "out to go on with the run, or start a new one."
        )
    with np.load(path) as stored:
        masks = [stored[name] for name in stored.files]
    if len(masks) != number:
        raise ConfigError(
            f"{path}: masks of {len(masks)} images, but the data have {number}: resume with the "
            "data that the run began with."
        )
    return masks
