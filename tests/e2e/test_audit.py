"""`spoco-zoo audit` as a user runs it: tables, JSON, a report, a mended package, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.conftest import run
from tests.packager.audit.conftest import Maker, Same


def third(folder: Path, **options: object) -> Path:
    (folder / "third").mkdir()
    return Maker(folder / "third")(Same(), **options)  # type: ignore[arg-type]


def test_a_faulty_package_is_reported_and_mended(tmp_path: Path) -> None:
    source = third(tmp_path, extra="halo: 2")
    report, fixed = tmp_path / "audit.html", tmp_path / "fixed.zip"
    size = ["--image-size", "96x96"]
    told = run("audit", source, *size, "--report", report, "--fix", fixed)
    assert told.code == 1
    assert "halo-too-small" in told.out
    page = report.read_text()
    assert page.count("data:image/png;base64,") == 4
    assert "<script" not in page
    assert "http" not in page
    again = run("audit", fixed, *size, "--json")
    assert again.code == 0
    values = json.loads(again.out)
    assert (values["version"], values["findings"]) == (1, [])
    assert {v["size"][0] for v in values["verdicts"]} == {96}


def test_what_cannot_be_run_ends_with_two(tmp_path: Path) -> None:
    source = third(tmp_path, weights=("pytorch_state_dict",))
    (source / "arch.py").write_text("raise SystemExit('was run')")
    told = run("audit", source)
    assert told.code == 2
    assert "--trust" in told.err
    assert "jdll-weights" in told.out


def test_bad_arguments_are_one_line(tmp_path: Path) -> None:
    assert "no such file" in run("audit", tmp_path / "no.zip").error
    source = third(tmp_path)
    assert "2048x3000" in run("audit", source, "--image-size", "big").error
    assert "expected 2 sizes" in run("audit", source, "--image-size", "9x9x9").error
    assert ".html" in run("audit", source, "--report", tmp_path / "a.txt").error
