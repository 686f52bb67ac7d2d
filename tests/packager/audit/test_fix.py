"""A declaration that was wrong is corrected in place; whatever else is wrong is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from torch import nn

from packager.audit.audit import audit
from packager.audit.fix import fix_package
from tests.packager.audit.conftest import Maker, Same
from zoo_models.errors import PackageError

SIZES = ((96, 96),)


def test_a_halo_too_small_is_corrected_and_nothing_else(make_third: Maker, tmp_path: Path) -> None:
    source = make_third(Same(), extra="halo: 2")
    out = tmp_path / "fixed.zip"
    fixed = fix_package(audit(source, image_sizes=SIZES), out)
    assert (fixed.findings, fixed.exit_code) == ((), 0)
    before = (source / "rdf.yaml").read_text().splitlines()
    with zipfile.ZipFile(out) as archive:
        after = archive.read("rdf.yaml").decode().splitlines()
        assert archive.read("out0.npy") == (source / "out0.npy").read_bytes()
    changed = [line for line, old in zip(after, before, strict=True) if line != old]
    assert len(changed) == 4  # the ranges of two input axes, the halos of two output axes
    assert [line.split()[-1] for line in changed[2:]] == ["4", "4"]


def test_a_missing_halo_is_put_in_and_format_04_stays(make_third: Maker, tmp_path: Path) -> None:
    out = tmp_path / "fixed.zip"
    fixed = fix_package(audit(make_third.old(Same(), halo=2), image_sizes=SIZES), out)
    assert (fixed.exit_code, fixed.format_version) == (0, "0.4.9")
    new = tmp_path / "new"
    new.mkdir()
    none = Maker(new)(Same(), extra="")
    assert fix_package(audit(none, image_sizes=SIZES), new / "fixed.zip").exit_code == 0


@pytest.mark.parametrize("middle", [nn.GroupNorm(2, 4), None])
def test_what_no_declaration_mends_is_refused(
    make_third: Maker, tmp_path: Path, middle: nn.Module | None
) -> None:
    found = audit(make_third(Same(middle)), image_sizes=SIZES)
    with pytest.raises(PackageError, match="statistics" if middle else "right already"):
        fix_package(found, tmp_path / "fixed.zip")
    assert list(tmp_path.glob("*.zip")) == []
