"""What is installed is what pyproject.toml says, and the files around the code agree with it."""

import os
import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
FLOORS = ("zoo_models", "packager", "training")


def requirement(name: str) -> Requirement:
    """Return the runtime requirement on one distribution."""
    found = [Requirement(line) for line in PROJECT["dependencies"]]
    return next(r for r in found if canonicalize_name(r.name) == canonicalize_name(name))


def wheel_files() -> set[str]:
    """Return the paths that a wheel of this checkout holds, without building one."""
    from hatchling.builders.wheel import WheelBuilder

    builder = WheelBuilder(str(REPOSITORY))
    return {Path(file.distribution_path).as_posix() for file in builder.recurse_included_files()}


def test_the_installed_distribution_is_this_version() -> None:
    assert metadata.version("spoco-zoo") == PROJECT["version"]


def test_the_console_script_is_installed() -> None:
    scripts = metadata.entry_points(group="console_scripts", name="spoco-zoo")
    assert [script.value for script in scripts] == ["packager.cli:main"]


def test_the_console_script_can_be_loaded() -> None:
    (script,) = metadata.entry_points(group="console_scripts", name="spoco-zoo")
    assert callable(script.load())


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("bioimageio.core", "0.11.0", "0.12.0"),
        ("pydantic", "2.13.5", "2.14.0"),
        ("torch", "2.13.0", "2.14.0"),
    ],
)
def test_versions_known_to_break_are_kept_out(name: str, inside: str, outside: str) -> None:
    assert inside in requirement(name).specifier
    assert outside not in requirement(name).specifier


def test_everything_installed_satisfies_the_runtime_requirements() -> None:
    wrong = [
        f"{line}: {metadata.version(Requirement(line).name)}"
        for line in PROJECT["dependencies"]
        if metadata.version(Requirement(line).name) not in Requirement(line).specifier
    ]
    assert wrong == []


def test_the_extras_are_there_and_dev_holds_the_others() -> None:
    extras = PROJECT["optional-dependencies"]
    assert set(extras) == {"train", "large", "openvino", "dev"}
    assert "spoco-zoo[large,train]" in extras["dev"]


def test_the_wheel_holds_the_three_floors_with_their_types() -> None:
    files = wheel_files()
    assert {f"{floor}/py.typed" for floor in FLOORS} <= files
    assert {path.partition("/")[0] for path in files} == set(FLOORS)


def test_the_wheel_holds_the_whole_catalog() -> None:
    catalog = REPOSITORY / "zoo_models" / "catalog"
    there = {
        path.relative_to(REPOSITORY).as_posix()
        for path in catalog.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert there
    assert there <= wheel_files()


def test_the_citation_names_this_version_and_licence() -> None:
    citation = (REPOSITORY / "CITATION.cff").read_text()
    assert re.search(rf"^version: {re.escape(PROJECT['version'])}$", citation, re.MULTILINE)
    assert re.search(rf"^license: {PROJECT['license']}$", citation, re.MULTILINE)


def test_the_changelog_has_a_place_for_the_next_change() -> None:
    assert "## [Unreleased]" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_the_licence_is_the_one_declared() -> None:
    assert (REPOSITORY / "LICENSE").read_text().startswith(f"{PROJECT['license']} License")


def test_the_check_of_every_change_can_be_executed() -> None:
    assert os.access(REPOSITORY / ".ci" / "run", os.X_OK)


def test_decision_records_are_numbered_without_gaps() -> None:
    names = sorted(path.name for path in (REPOSITORY / "docs" / "decisions").glob("*.md"))
    numbers = [int(name[:4]) for name in names]
    assert numbers == list(range(1, len(names) + 1))
