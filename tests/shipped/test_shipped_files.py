"""Shipped files are the implementation: curators read them, and they run without this project.

Whatever lies in the two rooms is checked; a new file needs no new test.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ARCHITECTURES = REPOSITORY / "zoo_models" / "architectures"
POSTPROCESSING = REPOSITORY / "zoo_models" / "postprocessing"
ALLOWED = {ARCHITECTURES: {"torch"}, POSTPROCESSING: {"numpy", "scipy", "hdbscan"}}
# The standard library, less what a segmentation has no business with. Curators grep for these.
NEVER = {
    "asyncio", "builtins", "code", "ctypes", "ftplib", "http", "importlib", "marshal",
    "multiprocessing", "os", "pickle", "runpy", "shutil", "smtplib", "socket", "ssl",
    "subprocess", "sys", "tempfile", "urllib",
}  # fmt: skip
NEVER_CALLED = {"__import__", "breakpoint", "compile", "eval", "exec", "input", "open", "print"}
MAX_LINES = 300
LONGER = {"basin_merging.py": 550, "unet_valid.py": 325}
"""The clusterer: docs/decisions/0010-labels-across-blocks.md; the network: its window sums."""

# Runs in a fresh process, where importing anything of ours is an error: loads the file as the
# zoo's runtimes do, under another module name.
LOAD_ALONE = """
import importlib.util, sys

class NothingOfOurs:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"zoo_models", "training", "packager"}:
            raise ImportError(f"a shipped file imports {name}")

sys.meta_path.insert(0, NothingOfOurs())
spec = importlib.util.spec_from_file_location("shipped_under_another_name", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
spec.loader.exec_module(module)
"""


def shipped(folder: Path) -> list[Path]:
    """Return the shipped files of one room: all but its __init__.py."""
    return sorted(path for path in folder.rglob("*.py") if path.name != "__init__.py")


EVERY_FILE = [path for folder in ALLOWED for path in shipped(folder)]
every_file = pytest.mark.parametrize("path", EVERY_FILE, ids=lambda path: path.name)


def imported(tree: ast.Module) -> Iterator[str]:
    """Yield every module that a file names in an import; a relative one with its dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def bad_imports(source: str, allowed: set[str]) -> list[str]:
    """Return the imports that are neither allowed nor harmless standard library."""
    fine = allowed | (set(sys.stdlib_module_names) - NEVER)
    return [name for name in imported(ast.parse(source)) if name.partition(".")[0] not in fine]


def bad_calls(source: str) -> list[str]:
    """Return the calls by bare name of functions that a shipped file must not call."""
    calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [f.id for f in calls if isinstance(f, ast.Name) and f.id in NEVER_CALLED]


def public_classes(source: str) -> list[str]:
    """Return the names of the classes at the top of a file that don't begin with an underscore."""
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    return [node.name for node in classes if not node.name.startswith("_")]


def load_alone(path: Path) -> subprocess.CompletedProcess[str]:
    """Load one file in a fresh process where our packages are blocked."""
    command = [sys.executable, "-I", "-c", LOAD_ALONE, str(path)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("folder", list(ALLOWED), ids=lambda folder: folder.name)
def test_the_room_holds_flat_shipped_files(folder: Path) -> None:
    assert shipped(folder)
    assert [path for path in shipped(folder) if path.parent != folder] == []


@every_file
def test_a_shipped_file_imports_only_what_is_allowed(path: Path) -> None:
    assert bad_imports(path.read_text(), ALLOWED[path.parent]) == []


@every_file
def test_a_shipped_file_neither_reads_nor_prints_nor_runs_text(path: Path) -> None:
    assert bad_calls(path.read_text()) == []


@every_file
def test_a_shipped_file_is_short_and_says_what_it_is(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= LONGER.get(path.name, MAX_LINES)
    assert ast.get_docstring(ast.parse(source))


@every_file
def test_a_shipped_file_loads_with_our_packages_blocked(path: Path) -> None:
    answer = load_alone(path)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == ""


@pytest.mark.parametrize("path", shipped(POSTPROCESSING), ids=lambda path: path.name)
def test_a_clusterer_file_holds_exactly_one_public_class(path: Path) -> None:
    assert len(public_classes(path.read_text())) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import numpy",
        "from zoo_models import errors",
        "from . import other",
        "from .. import geometry",
        "import torch, pickle",
        "def later():\n    import os.path",
    ],
)
def test_the_guard_sees_an_import_that_is_not_allowed(source: str) -> None:
    assert bad_imports(source, {"torch"})


def test_the_guard_lets_torch_and_harmless_standard_library_pass() -> None:
    assert bad_imports("import math\nfrom torch.nn import functional as F", {"torch"}) == []


def test_the_guard_sees_a_call_that_is_not_allowed() -> None:
    assert bad_calls("def f(x):\n    return eval(x)") == ["eval"]
    assert bad_calls("self.eval()") == []


def test_the_guard_counts_public_classes_only() -> None:
    assert public_classes("class A: ...\nclass _B: ...\nclass C: ...") == ["A", "C"]


def test_the_guard_blocks_our_packages_in_the_fresh_process(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text("import zoo_models.errors\n")
    answer = load_alone(file)
    assert answer.returncode != 0
    assert "a shipped file imports zoo_models" in answer.stderr
