"""The three floors: imports only point down, and heavy ones wait inside the CLI's commands."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FLOORS = ("zoo_models", "packager", "training")
CLI_FILES = sorted(REPOSITORY.glob("packager/cli.py")) + sorted(
    REPOSITORY.glob("packager/cli/**/*.py")
)
# Each of these takes longer to import than `spoco-zoo --help` may take in all.
HEAVY = {"torch", "lightning", "monai", "bioimageio", "hdbscan", "scipy", "onnx", "xarray"}
LINT = "from importlinter.cli import lint_imports_command as command; command()"


def imports_at_import_time(tree: ast.Module) -> Iterator[str]:
    """Yield the modules that importing the file imports: not those inside functions."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter with this repository's contracts on the packages under `root`."""
    return subprocess.run(
        [sys.executable, "-c", LINT, "--config", str(REPOSITORY / "pyproject.toml"), "--no-cache"],
        cwd=root,
        capture_output=True,
        text=True,
    )


def test_every_import_contract_is_kept() -> None:
    answer = lint_imports(REPOSITORY)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.fixture
def small_house(tmp_path: Path) -> Path:
    """Return a folder with the three floors and their rooms, all empty and so all in order."""
    rooms = ("architectures", "postprocessing", "prediction")
    folders = [*FLOORS, *(f"zoo_models/{room}" for room in rooms)]
    for folder in folders:
        (tmp_path / folder).mkdir()
    files = ["geometry.py", "errors.py", "checkpoint.py"]
    paths = [f"{folder}/__init__.py" for folder in folders] + [f"zoo_models/{f}" for f in files]
    for path in [*paths, "training/fit.py", "packager/cli.py", "packager/export.py"]:
        (tmp_path / path).write_text("")
    return tmp_path


def test_commands_may_reach_training(small_house: Path) -> None:
    (small_house / "packager/cli.py").write_text("def train():\n    import training.fit\n")
    answer = lint_imports(small_house)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize(
    ("path", "bad_import"),
    [
        ("zoo_models/checkpoint.py", "import training.fit"),
        ("training/fit.py", "def fit():\n    import packager.export"),
        ("packager/export.py", "def export():\n    from training import fit"),
        ("zoo_models/geometry.py", "import torch"),
        ("zoo_models/architectures/net.py", "import numpy"),
        ("zoo_models/architectures/net.py", "from zoo_models import errors"),
        ("zoo_models/postprocessing/method.py", "import torch"),
        ("zoo_models/postprocessing/method.py", "from ..geometry import Box"),
    ],
)
def test_an_import_that_points_up_or_out_breaks_a_contract(
    small_house: Path, path: str, bad_import: str
) -> None:
    (small_house / path).write_text(bad_import + "\n")
    answer = lint_imports(small_house)
    assert answer.returncode == 1
    assert "BROKEN" in answer.stdout


def test_the_contracts_name_every_floor() -> None:
    config = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert set(config["root_packages"]) == set(FLOORS)


@pytest.mark.parametrize("path", CLI_FILES, ids=lambda path: path.name)
def test_the_command_line_imports_nothing_heavy_before_a_command_runs(path: Path) -> None:
    found = {name.partition(".")[0] for name in imports_at_import_time(ast.parse(path.read_text()))}
    assert not found & (HEAVY | {"training"})


@pytest.mark.parametrize("floor", FLOORS)
def test_opening_a_floor_imports_no_other_library(floor: str) -> None:
    code = f"import sys, {floor}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == ""


@pytest.mark.parametrize("floor", FLOORS)
def test_every_folder_with_code_is_a_package(floor: str) -> None:
    folders = {path.parent for path in (REPOSITORY / floor).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []
