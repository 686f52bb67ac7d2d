"""Sparse supervision: keep the labels of some instances, as if only those had been annotated.

SPOCO@p of Wolny et al. 2022: the fraction p of all instances of a data set, drawn whatever image
they lie in. Everything else becomes 0, which then says "unlabeled"; the background is never drawn,
so at p = 1 all instances are labeled and the background still is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from training.datasets import Sample
from training.sections import SupervisionSection
from zoo_models.errors import ConfigError


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
    ids = [np.unique(s.labels[s.labels > 0]) for s in samples]
    total = sum(len(own) for own in ids)
    number = supervision.instances or max(1, round((supervision.fraction or 0) * total))
    if number > total:
        raise ConfigError(
            f"supervision asks for {number} instances, but the training split has {total}: ask for "
            "less, or annotate more."
        )
    order = np.random.default_rng(supervision.seed).permutation(total)
    drawn = np.zeros(total, bool)
    drawn[order[:number]] = True
    ends = np.cumsum([len(own) for own in ids])
    kept = [own[d] for own, d in zip(ids, np.split(drawn, ends[:-1]), strict=True)]
    return tuple(
        replace(s, labels=np.where(np.isin(s.labels, k), s.labels, 0))
        for s, k in zip(samples, kept, strict=True)
    )
