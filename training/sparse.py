"""Sparse supervision: keep the labels of some instances, as if only those had been annotated.

SPOCO@p of Wolny et al. 2022: the fraction p of all instances of a data set, drawn whatever image
they lie in. Everything else becomes 0, which then says "unlabeled"; the background is never drawn,
so at p = 1 all instances are labeled and the background still is not.

The same budget can be spent densely, on whole images (their Table 16).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from training.datasets import Sample
from training.sections import SupervisionSection
from zoo_models.errors import ConfigError


def supervised(samples: Sequence[Sample], supervision: SupervisionSection) -> tuple[Sample, ...]:
    """What remains of the training split under this supervision: see the two functions below."""
    draw = densely_labelled if supervision.dense else sparsely_labelled
    return draw(samples, supervision)


def sparsely_labelled(
    samples: Sequence[Sample], supervision: SupervisionSection
) -> tuple[Sample, ...]:
    """The same images in the same order, with the labels of the drawn instances only.

    A fraction is rounded to the nearest whole number of instances, at least one. The draw depends
    on the seed and the order of the samples. Draws of one seed are nested: what a smaller fraction
    keeps, a larger one keeps too.

    Raises:
        ConfigError: there are fewer instances than asked for, or none.
    """
    ids = _instances(samples)
    total = sum(len(own) for own in ids)
    number = _number(supervision, total)
    order = np.random.default_rng(supervision.seed).permutation(total)
    drawn = np.zeros(total, bool)
    drawn[order[:number]] = True
    ends = np.cumsum([len(own) for own in ids])
    kept = [own[d] for own, d in zip(ids, np.split(drawn, ends[:-1]), strict=True)]
    return tuple(
        replace(s, labels=np.where(np.isin(s.labels, k), s.labels, 0))
        for s, k in zip(samples, kept, strict=True)
    )


def densely_labelled(
    samples: Sequence[Sample], supervision: SupervisionSection
) -> tuple[Sample, ...]:
    """Whole images with all their labels, until the instances are used up; no other image.

    Images are taken in a random order, which depends on the seed and the order of the samples; one
    with more instances than are left, or with none, is passed over. So at most the asked number is
    used, and less where no image fits the rest.

    Raises:
        ConfigError: there are fewer instances than asked for, or every image has more.
    """
    counts = [len(own) for own in _instances(samples)]
    left = number = _number(supervision, sum(counts))
    taken = []
    for i in np.random.default_rng(supervision.seed).permutation(len(samples)):
        if 0 < counts[i] <= left:
            taken.append(samples[i])
            left -= counts[i]
    if not taken:
        fewest = min(c for c in counts if c)
        raise ConfigError(
            f"supervision asks for {number} instances of whole images, but every image has at "
            f"least {fewest}: ask for more, or leave dense out."
        )
    return tuple(taken)


def _instances(samples: Sequence[Sample]) -> list[NDArray[np.int32]]:
    return [np.unique(s.labels[s.labels > 0]) for s in samples]


def _number(supervision: SupervisionSection, total: int) -> int:
    """Instances to label, of `total`."""
    number = supervision.instances or max(1, round((supervision.fraction or 0) * total))
    if number > total:
        raise ConfigError(
            f"supervision asks for {number} instances, but the training split has {total}: ask for "
            "less, or annotate more."
        )
    return number
