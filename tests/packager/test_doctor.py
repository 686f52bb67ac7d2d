"""The doctor finds what is missing, what does not fit, and who claims our import names."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from packager import doctor
from packager.doctor import Diagnosis, Row, diagnose

REPOSITORY = Path(doctor.__file__).resolve().parents[1]


def row(diagnosis: Diagnosis, name: str) -> Row:
    return next(row for row in diagnosis.rows if row.name == name)


def problems_after(setup: str, folder: Path) -> list[str]:
    """Problems with our import names in a fresh process, run in `folder` after `setup`."""
    code = (
        f"import sys, site; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "sys.modules['torch'] = None  # not asked for here, and slow to import\n"
        f"{setup}\n"
        "from packager.doctor import diagnose\n"
        "rows = [r for r in diagnose().rows if r.topic == 'import names']\n"
        "import json\n"
        "print(json.dumps([f'{r.name}: {r.value}' for r in rows if r.state == 'problem']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    problems: list[str] = json.loads(done.stdout)
    return problems


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages where the distribution `other-tool` brings `training`."""
    site = tmp_path / "site"
    (site / "training").mkdir(parents=True)
    (site / "training" / "__init__.py").touch()
    info = site / "other_tool-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-tool\nVersion: 0.1\n")
    (info / "RECORD").write_text("training/__init__.py,,\n")
    return site


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout that brings `packager`; nothing is installed yet."""
    (tmp_path / "checkout" / "packager").mkdir(parents=True)
    (tmp_path / "checkout" / "packager" / "__init__.py").touch()
    return tmp_path / "checkout"


def test_nobody_else_owns_our_names_here(tmp_path: Path) -> None:
    assert problems_after("", tmp_path) == []


def test_a_distribution_that_installs_one_of_our_names_is_named(tmp_path: Path, site: Path) -> None:
    problems = problems_after(f"sys.path.append({str(site)!r})", tmp_path)
    assert any("training: also owned by the distribution other-tool" in p for p in problems)
    assert any("hidden behind ours" in p for p in problems)
    assert all(p.startswith("training") for p in problems)


def test_a_name_imported_from_elsewhere_is_found(tmp_path: Path, site: Path) -> None:
    problems = problems_after(f"sys.path.insert(0, {str(site)!r})", tmp_path)
    wanted = f"training: imported from {site / 'training'} instead of {REPOSITORY / 'training'}"
    assert wanted in problems


def test_an_editable_installation_by_path_is_named(
    tmp_path: Path, site: Path, checkout: Path
) -> None:
    """Its record lists a .pth file only, so no metadata says that it owns the name."""
    (site / "training" / "__init__.py").unlink()
    (site / "training").rmdir()
    (site / "other_tool.pth").write_text(str(checkout))
    info = site / "other_tool-0.1.dist-info"
    (info / "RECORD").write_text("other_tool.pth,,\n")
    (info / "direct_url.json").write_text(json.dumps({"url": checkout.as_uri(), "dir_info": {}}))
    problems = problems_after(f"site.addsitedir({str(site)!r})", tmp_path)
    assert len(problems) == 1
    assert f"{checkout / 'packager'} (other-tool) has this name too" in problems[0]


def test_an_editable_installation_by_finder_is_found(tmp_path: Path, checkout: Path) -> None:
    setup = f"""
from importlib.util import spec_from_file_location
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        folder = {str(checkout)!r} + "/" + name
        if name == "packager":
            return spec_from_file_location(
                name, folder + "/__init__.py", submodule_search_locations=[folder]
            )
sys.meta_path.append(Finder)
"""
    problems = problems_after(setup, tmp_path)
    assert len(problems) == 1
    assert f"{checkout / 'packager'} has this name too" in problems[0]


def test_a_plain_folder_of_that_name_beside_the_user_is_harmless(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    assert problems_after("sys.path.insert(0, '')", tmp_path) == []


def test_every_requirement_is_listed_once_with_its_version() -> None:
    rows = [row for row in diagnose().rows if row.topic == "packages"]
    names = [row.name for row in rows]
    assert len(names) == len(set(names))
    assert {"spoco-zoo", "torch", "tifffile", "lightning"} <= set(names)
    assert row(diagnose(), "numpy").value == metadata.version("numpy")


def without(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that a distribution is not installed."""
    version = metadata.version

    def no_version(asked: str) -> str:
        if asked == name:
            raise metadata.PackageNotFoundError(asked)
        return version(asked)

    monkeypatch.setattr(metadata, "version", no_version)


def test_a_missing_dependency_is_a_problem_with_the_command_that_mends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without("hdbscan", monkeypatch)
    diagnosis = diagnose()
    assert row(diagnosis, "hdbscan").state == "problem"
    assert [p for p in diagnosis.problems if p.startswith("hdbscan: not installed: python -m pip")]


def test_a_missing_extra_is_no_problem_and_says_which_extra_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without("lightning", monkeypatch)
    found = row(diagnose(), "lightning")
    assert found.state == "missing"
    assert "[train]" in found.hint


def test_a_version_outside_the_range_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: "2.14.1" if name == "pydantic" else version(name)
    )
    found = row(diagnose(), "pydantic")
    assert found.state == "problem"
    assert "2.14.1, expected" in found.value


def test_our_own_distribution_missing_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DISTRIBUTION", "spoco-zoo-that-nobody-installed")
    assert any("not installed" in problem for problem in diagnose().problems)


def test_a_torch_that_cannot_be_imported_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    devices = [row for row in diagnose().rows if row.topic == "devices"]
    assert [(row.name, row.state) for row in devices] == [("torch", "problem")]


def test_the_cpu_is_listed_with_threads_and_bf16() -> None:
    cpu = row(diagnose(), "cpu")
    assert "thread" in cpu.value
    assert cpu.value.endswith(("bf16 yes", "bf16 no", "bf16 unknown"))


@pytest.mark.gpu
def test_every_cuda_device_is_listed() -> None:
    import torch

    names = [row.name for row in diagnose().rows if row.topic == "devices"]
    assert [f"cuda:{i}" for i in range(torch.cuda.device_count())] == names[1:]


def test_the_diagnosis_survives_json() -> None:
    diagnosis = diagnose()
    assert json.loads(json.dumps(diagnosis.as_json())) == diagnosis.as_json()
