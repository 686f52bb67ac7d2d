"""The draw of the instances that keep their labels, and the refusals of a useless request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.config import load_config
from training.datasets import Sample
from training.sections import SupervisionSection
from training.sparse import densely_labelled, sparsely_labelled, supervised
from zoo_models.errors import ConfigError

COUNTS = (7, 0, 12, 1)
TOTAL = sum(COUNTS)


def samples() -> tuple[Sample, ...]:
    """Images of 7, 0, 12 and 1 instances; ids are not consecutive, and 0 is everywhere."""
    made = []
    for number, count in enumerate(COUNTS):
        labels = np.zeros((9, 20), np.int32)
        for k in range(count):
            labels[k // 4 * 2, k % 4 * 4 : k % 4 * 4 + 3] = 10 * (k + 1)
        image = np.random.default_rng(number).random((1, 9, 20)).astype(np.float32)
        made.append(Sample(f"s{number}", image, labels))
    return tuple(made)


def kept(drawn: Sequence[Sample]) -> set[tuple[str, int]]:
    return {(s.name, int(k)) for s in drawn for k in np.unique(s.labels) if k != 0}


@given(number=st.integers(1, TOTAL), seed=st.integers(0, 99))
def test_as_many_instances_as_asked_for_keep_all_of_their_pixels(number: int, seed: int) -> None:
    before = samples()
    after = sparsely_labelled(before, SupervisionSection(instances=number, seed=seed))
    assert len(kept(after)) == number
    for old, new in zip(before, after, strict=True):
        assert new.name == old.name
        assert new.labels.dtype == np.int32
        assert np.array_equal(new.image, old.image)
        for label in np.unique(old.labels):
            drawn = (old.name, int(label)) in kept(after)
            assert (new.labels[old.labels == label] == (label if drawn else 0)).all()


@pytest.mark.parametrize(("fraction", "number"), [(0.1, 2), (0.5, 10), (1.0, TOTAL), (0.001, 1)])
def test_a_fraction_is_one_of_the_whole_data_set(fraction: float, number: int) -> None:
    after = sparsely_labelled(samples(), SupervisionSection(fraction=fraction))
    assert len(kept(after)) == number


def test_draws_can_be_repeated_and_other_seeds_draw_others() -> None:
    draws = [
        kept(sparsely_labelled(samples(), SupervisionSection(fraction=0.3, seed=seed)))
        for seed in (0, 0, 1, 2)
    ]
    assert draws[0] == draws[1]
    assert len({frozenset(d) for d in draws[1:]}) == 3


@given(st.integers(1, TOTAL), st.integers(1, TOTAL), st.integers(0, 20))
def test_draws_of_one_seed_are_nested(first: int, second: int, seed: int) -> None:
    small, large = (
        kept(sparsely_labelled(samples(), SupervisionSection(instances=n, seed=seed)))
        for n in sorted((first, second))
    )
    assert small <= large


def test_every_instance_is_drawn_as_often_as_any_other() -> None:
    counts: dict[tuple[str, int], int] = {}
    for seed in range(400):
        for name in kept(sparsely_labelled(samples(), SupervisionSection(instances=5, seed=seed))):
            counts[name] = counts.get(name, 0) + 1
    assert len(counts) == TOTAL
    assert all(60 < n < 140 for n in counts.values())  # 100 +- 4.6 standard deviations


def test_more_instances_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match="asks for 21 instances, but the training split has 20"):
        sparsely_labelled(samples(), SupervisionSection(instances=21))
    with pytest.raises(ConfigError, match="has 0"):
        sparsely_labelled(samples()[1:2], SupervisionSection(fraction=1.0))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[supervision]\nseed = 1", "supervision: neither fraction nor instances"),
        (
            "[supervision]\nfraction = 0.1\ninstances = 3",
            "supervision: both fraction and instances",
        ),
        ("[supervision]\nfraction = 0", "supervision.fraction: .*greater than 0"),
        ("[supervision]\nfraction = 1.5", "supervision.fraction: .*less than or equal to 1"),
        ("[teacher]\n[loss]\nconsistency = 0", "nothing is compared"),
        ("[teacher]\nmomentum = 1.0", "teacher.momentum: .*less than 1"),
        ('[teacher]\nkind = "dropout"\nkeep = true', 'teacher: keep is true and kind is "dropout"'),
        ('[clusterer]\nname = "consistency"', "clusterer: .*export --teacher"),
        ("[loss]\nadversarial = 0.1", "begins after 50000 steps, but run.max_steps is 4"),
        ("[supervision]\nfraction = 1\n[loss]\ndelta_v = 0", "loss.delta_v is 0"),
    ],
)
def test_what_cannot_work_is_refused(config_file: Path, text: str, complaint: str) -> None:
    config_file.write_text(config_file.read_text() + text)
    with pytest.raises(ConfigError, match=complaint):
        load_config(config_file)


@given(number=st.integers(1, TOTAL), seed=st.integers(0, 99))
def test_a_dense_budget_is_spent_on_whole_images(number: int, seed: int) -> None:
    before = {s.name: s for s in samples()}
    after = densely_labelled(samples(), SupervisionSection(instances=number, seed=seed, dense=True))
    for sample in after:
        assert np.array_equal(sample.labels, before[sample.name].labels)
    left = number - len(kept(after))
    passed_over = set(before) - {s.name for s in after}
    assert left >= 0
    assert all(len(kept([before[n]])) == 0 or len(kept([before[n]])) > left for n in passed_over)


def test_a_dense_budget_smaller_than_every_image_is_refused() -> None:
    crowded = tuple(s for s in samples() if s.name in ("s0", "s2"))
    with pytest.raises(ConfigError, match="every image has at least 7"):
        densely_labelled(crowded, SupervisionSection(instances=6, dense=True))


def test_the_section_says_how_the_budget_is_spent() -> None:
    section = SupervisionSection(instances=8)
    dense = section.model_copy(update={"dense": True})
    assert len(supervised(samples(), section)) == len(COUNTS)
    assert len(supervised(samples(), dense)) < len(COUNTS)


def test_only_a_sparse_budget_leaves_pixels_unlabeled(config_file: Path) -> None:
    text = config_file.read_text()
    for line, unlabeled in (("", 0), ("dense = true", None)):
        config_file.write_text(f"{text}\n[supervision]\ninstances = 8\n{line}\n")
        config = load_config(config_file)
        assert config.embedding_loss.unlabeled == unlabeled
        assert config.with_teacher == (unlabeled == 0)
