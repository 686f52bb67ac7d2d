"""What the documents tell a reader to type works: Python blocks run, commands and flags exist.

```python run         runs, top to bottom, one namespace per document
```python             must at least compile
```toml               must parse
```console, bash, sh  every spoco-zoo command, its flags and every make target must exist
"""

import ast
import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted(REPOSITORY.glob("docs/**/*.md")),
]
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
SHELLS = {"console", "bash", "sh", "shell"}


@dataclass(frozen=True)
class Block:
    """One fenced block: its document, the line of its first code, its info words and its text."""

    document: Path
    line: int
    info: tuple[str, ...]
    text: str

    @property
    def language(self) -> str:
        return self.info[0] if self.info else ""

    def __str__(self) -> str:
        return f"{self.document.relative_to(REPOSITORY)}:{self.line}"


def blocks_of(document: Path, text: str) -> list[Block]:
    """Return the fenced blocks of a markdown text."""
    return [
        Block(
            document=document,
            line=text.count("\n", 0, match.start(2)) + 1,
            info=tuple(match[1].split()),
            text=match[2],
        )
        for match in FENCE.finditer(text)
    ]


def commands_in(block: Block) -> list[list[str]]:
    """Return the words of every command of a shell block, without its output and comments.

    In `console` blocks commands begin with "$ "; in the others every line is one.
    """
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    parts = [part for line in lines for part in re.split(r"\s(?:&&|\|\||\||;)\s", line)]
    return [words for part in parts if (words := shlex.split(part, comments=True))]


def wrong_with(command: Any, words: list[str]) -> str | None:
    """Say what a command line asks for that the click command does not have, or None."""
    while getattr(command, "commands", None) is not None and words:
        if words[0].startswith("-"):
            break
        if words[0] not in command.commands:
            return f"no command {words[0]!r}, only {sorted(command.commands)}"
        command, words = command.commands[words[0]], words[1:]
    known = {"--help"}
    for parameter in command.params:
        known |= {*parameter.opts, *parameter.secondary_opts}
    flags = [word.partition("=")[0] for word in words if re.match(r"--?[A-Za-z]", word)]
    unknown = [flag for flag in flags if flag not in known]
    return f"{command.name} has no {unknown}, only {sorted(known)}" if unknown else None


ALL = [b for path in DOCUMENTS if path.exists() for b in blocks_of(path, path.read_text("utf-8"))]
PYTHON = [block for block in ALL if block.language == "python"]
TO_RUN = list(dict.fromkeys(block.document for block in PYTHON if "run" in block.info))
COMMANDS = [
    pytest.param(words, id=f"{block} {shlex.join(words)}")
    for block in ALL
    if block.language in SHELLS
    for words in commands_in(block)
]


def command_line() -> Any:
    """Return the command line as a tree of click commands."""
    import typer

    from packager.cli import app

    return typer.main.get_command(app)


def test_the_readme_begins_with_the_two_commands() -> None:
    first_screen = (REPOSITORY / "README.md").read_text("utf-8").splitlines()[:40]
    assert any("make demo" in line for line in first_screen)
    assert any("make test" in line for line in first_screen)


@pytest.mark.parametrize("document", TO_RUN, ids=lambda path: path.name)
def test_python_blocks_marked_run_do_run(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Blocks name files as a reader at the repository's root would; what they write stays here.
    for name in ("zoo_models", "docs", "benchmarks"):
        (tmp_path / name).symlink_to(REPOSITORY / name, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "document"}
    for block in (b for b in PYTHON if b.document == document and "run" in b.info):
        code = "\n" * (block.line - 1) + block.text  # so that a traceback names the right line
        exec(compile(code, str(document), "exec"), namespace)


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_blocks_compile(block: Block) -> None:
    ast.parse(block.text)


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "toml"], ids=str)
def test_toml_blocks_parse(block: Block) -> None:
    tomllib.loads(block.text)


@pytest.mark.parametrize("words", COMMANDS)
def test_commands_and_flags_exist(words: list[str]) -> None:
    program = Path(words[0]).name
    if program == "spoco-zoo":
        assert wrong_with(command_line(), words[1:]) is None
    if program == "make":
        makefile = (REPOSITORY / "Makefile").read_text()
        targets = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
        assert [t for t in targets if not re.search(rf"^{re.escape(t)}:", makefile, re.M)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_to_files_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", FENCE.sub("", document.read_text("utf-8")))
    paths = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert [path for path in paths if not (document.parent / path).exists()] == []


def test_a_block_knows_its_line_and_its_words() -> None:
    (block,) = blocks_of(REPOSITORY / "x.md", "# x\n\n```python run\na = 1\n```\n")
    assert (block.line, block.info, block.text) == (4, ("python", "run"), "a = 1\n")


def test_commands_are_told_from_their_output() -> None:
    text = (
        "```console\n$ spoco-zoo export a \\\n    -o b.zip  # why\nwrote b.zip\n$ make demo\n```\n"
    )
    (block,) = blocks_of(REPOSITORY / "x.md", text)
    assert commands_in(block) == [["spoco-zoo", "export", "a", "-o", "b.zip"], ["make", "demo"]]


def test_a_command_or_flag_that_does_not_exist_is_seen() -> None:
    import typer

    app = typer.Typer()

    @app.callback()
    def root() -> None:
        """A group."""

    @app.command()
    def export(source: str, overwrite: bool = False) -> None:
        """One command."""

    command = typer.main.get_command(app)
    assert wrong_with(command, ["export", "a", "--overwrite"]) is None
    assert "no command 'exprot'" in str(wrong_with(command, ["exprot", "a"]))
    assert "['--force']" in str(wrong_with(command, ["export", "a", "--force"]))
