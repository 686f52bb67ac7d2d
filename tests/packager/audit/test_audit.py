"""Whole audits: our own package is clean, and every fault of a foreign one has its finding."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import nn

from packager.audit.audit import Audit
from packager.audit.audit import audit as run_audit
from packager.consumers import core, ilastik, jdll
from tests.packager.audit.conftest import Maker, Same, Two, Wide
from zoo_models.errors import PackageError

SIZES = ((96, 96), (99, 115))


def audit(source: Path, **options: int | bool) -> Audit:
    return run_audit(source, image_sizes=SIZES, **options)  # type: ignore[arg-type]


def rules(found: Audit) -> set[str]:
    return {f.rule for f in found.findings if f.severity != "note"}


def outcomes(found: Audit, size: tuple[int, ...]) -> dict[str, str]:
    return {v.consumer: v.outcome for v in found.verdicts if v.size == size}


def test_a_package_of_ours_is_clean(package: Path) -> None:
    found = run_audit(package, image_sizes=[(160, 160), (163, 171)])
    assert (found.findings, found.exit_code) == ((), 0)
    assert set(outcomes(found, (160, 160)).values()) == {"exact"}
    axis = found.measurements[0].axes[0]
    assert axis.period == 4  # two poolings by two
    off = {v.consumer: v for v in found.verdicts if v.size == (163, 171)}
    assert off[jdll.NAME].outcome == "wrong"
    assert off[jdll.NAME].grid == (4, 4)
    assert (off[jdll.NAME].sigma or 0) > 0.1


def test_a_right_package_of_somebody_else_is_clean(make_third: Maker) -> None:
    found = audit(make_third(Same()))
    assert rules(found) == set()
    assert found.exit_code == 0
    # by hand: 1 fine pixel, then 1 coarse pixel (2 wide) beside the own pair
    axis = found.measurements[0].axes[0]
    assert (axis.period, axis.complete) == (2, True)
    assert max(axis.before, axis.after) == 4


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"extra": "halo: 2"}, "halo-too-small"),
        ({"step": 3, "minimum": 33}, "declared-size-fails"),
        ({"step": 6, "minimum": 36}, "step-off-period"),
        ({"minimum": 34, "step": 4}, "min-off-period"),
        ({"minimum": 34, "step": 4}, "min-off-step"),
        ({"extra": "halo: 6;offset: -2"}, "offset-and-halo"),
        ({"extra": "offset: -2"}, "output-size"),
    ],
)
def test_each_wrong_declaration_has_its_finding(
    make_third: Maker, options: dict[str, object], rule: str
) -> None:
    found = audit(make_third(Same(), **options))  # type: ignore[arg-type]
    assert rule in rules(found)
    assert found.exit_code == 1


def test_a_halo_too_small_is_seen_in_every_consumer_that_tiles(make_third: Maker) -> None:
    found = run_audit(make_third(Same(), extra="halo: 2"), image_sizes=[(120, 120)])
    told = {v.consumer: v for v in found.verdicts}
    assert told[core.NAME].outcome == "wrong"
    assert 0 < told[core.NAME].wrong < 0.5
    assert found.proposal.axes[0].halo == 4


def test_group_norm_is_a_statistic(make_third: Maker) -> None:
    found = audit(make_third(Same(nn.GroupNorm(2, 4))))
    assert "statistics-in-graph" in rules(found)
    assert found.proposal.axes == ()


def test_statistics_in_the_preprocessing_are_measured(make_third: Maker) -> None:
    source = make_third(Same(), preprocessing="[{id: zero_mean_unit_variance}]")
    found = audit(source)
    finding = next(f for f in found.findings if f.rule == "preprocessing-statistics")
    assert finding.severity == "error"
    assert outcomes(found, SIZES[0])[ilastik.NAME] == "wrong"


def test_fixed_constants_in_the_preprocessing_are_no_finding(make_third: Maker) -> None:
    steps = "[{id: scale_linear, kwargs: {gain: 0.5, offset: 1.0}}]"
    assert rules(audit(make_third(Same(), preprocessing=steps))) == set()


def test_a_valid_output_is_declared_with_an_offset(make_third: Maker) -> None:
    valid = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Conv2d(2, 2, 3))
    found = audit(make_third(valid, step=1, extra="offset: -4"))
    assert rules(found) == {"offset"}
    axis = found.measurements[0].axes[0]
    assert (axis.scale, axis.margin) == (Fraction(1), Fraction(-4))
    assert outcomes(found, SIZES[0])[jdll.NAME] == "fails"
    assert "wrapped" in found.proposal.reason


def test_a_fixed_size_is_probed_inside_that_size(make_third: Maker) -> None:
    found = audit(make_third(Same(), minimum=64, step=0, extra="halo: 4"))
    assert rules(found) == set()
    assert outcomes(found, SIZES[0])[jdll.NAME] in ("exact", "wrong")
    assert {size for size, _ in found.measurements[0].sizes} == {(64, 64)}


def test_several_inputs_and_outputs_are_judged_each(make_third: Maker) -> None:
    found = audit(make_third.two(Two()))
    assert "ilastik-one-tensor" in rules(found)
    first, second = found.measurements
    assert max(first.axes[0].before, first.axes[0].after) == 1
    assert (second.axes[0].scale, second.output) == (Fraction(2), "out1")
    assert any(f.rule == "scale" and f.axis.startswith("out1") for f in found.findings)
    assert {v.output for v in found.verdicts} == {"out0", "out1"}


def test_onnx_alone_runs_but_not_in_ilastik(make_third: Maker) -> None:
    found = audit(make_third(Same(), weights=("onnx",)))
    assert found.weights == "onnx"
    assert rules(found) == {"ilastik-weights"}
    assert outcomes(found, SIZES[0])[ilastik.NAME] == "refuses"
    assert found.measurements[0].axes[0].period == 2


ARCHITECTURE = """
from pathlib import Path
from tests.packager.audit.conftest import Same as Net
Path({marker!r}).write_text("was run")
"""


def test_packaged_python_runs_only_when_trusted(make_third: Maker, tmp_path: Path) -> None:
    source, marker = make_third(Same(), weights=("pytorch_state_dict",)), tmp_path / "marker"
    (source / "arch.py").write_text(ARCHITECTURE.format(marker=str(marker)))
    found = audit(source)
    assert found.exit_code == 2
    assert "--trust" in found.unmeasured
    assert not marker.exists()
    trusted = audit(source, trust=True)
    assert marker.exists()
    assert trusted.weights == "pytorch_state_dict"
    assert trusted.measurements[0].axes[0].period == 2


def test_a_field_larger_than_the_budget_is_at_least_something(make_third: Maker) -> None:
    source = make_third(Wide())
    found = run_audit(source, image_sizes=[(64, 64)], probe_pixels=10_000)
    halo = next(f for f in found.findings if f.rule == "halo-too-small")
    assert halo.measured.startswith("at least")
    assert "not seen to end" in found.proposal.reason


def test_a_network_in_training_mode_is_seen(make_third: Maker) -> None:
    class Training(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x - x.mean(dim=(0, 2, 3), keepdim=True)).tanh()

    assert "batch-statistics" in rules(audit(make_third(Training(), extra="halo: 4")))


def test_format_04_is_read_like_05(make_third: Maker) -> None:
    assert rules(audit(make_third.old(Same(), halo=6))) == set()
    assert "halo-too-small" in rules(audit(make_third.old(Same(), halo=2)))


def test_a_file_that_is_no_package_is_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.zip"
    bad.write_bytes(b"no zip")
    with pytest.raises(PackageError, match="not a complete zip"):
        audit(bad)


@pytest.mark.parametrize("extra", ["halo: 6", "halo: 2"])
def test_what_is_derived_is_what_a_run_shows(make_third: Maker, extra: str) -> None:
    source = make_third(Same(), extra=extra)
    sizes = [(120, 120), (121, 131)]
    ran = run_audit(source, image_sizes=sizes)
    derived = run_audit(source, image_sizes=sizes, stitch_pixels=0)
    assert {v.how for v in derived.verdicts} == {"derived"}
    checked = 0
    for one, other in zip(ran.verdicts, derived.verdicts, strict=True):
        if one.how == "run":
            assert one.outcome == other.outcome, (one, other)
            assert abs(one.wrong - other.wrong) < 0.03, (one, other)
            checked += 1
    assert checked >= 6
