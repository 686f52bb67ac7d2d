"""A run can be followed: a bar while it lasts, and a folder that tells its story, cuts included."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger
from rich.console import Console

import training.progress.writer as writer
from training.config import TrainingConfig, load_config
from training.fit import fit
from training.module import EmbeddingModule
from training.progress.bar import Bar, scores_line, terms_line
from training.progress.curves import read_curves

TERMS = ("pull", "push", "regulariser", "object", "unlabeled_push", "consistency", "phase")


@pytest.fixture
def config(config_file: Path) -> TrainingConfig:
    """Two epochs of 25 steps: the tables get a line of losses every 25."""
    text = config_file.read_text().replace("max_steps = 4", "max_steps = 50")
    text = text.replace("output = 36", "output = 12").replace("batch = 2", "batch = 1")
    config_file.write_text(text.replace("epoch_steps = 2", "epoch_steps = 25"))
    return load_config(config_file)


def cut_at(step: int) -> Any:
    def cut_off(module: EmbeddingModule, *_: Any) -> None:
        if module.global_step == step:
            raise RuntimeError("the power is gone")

    return cut_off


def test_a_killed_run_that_goes_on_tells_the_same_story_as_an_undisturbed_one(
    config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    fit(config, whole)
    with monkeypatch.context() as patch:  # a kill lets nobody write a last word
        patch.setattr(EmbeddingModule, "on_train_batch_end", cut_at(30))
        patch.setattr(writer.ProgressWriter, "on_exception", lambda *_: None)
        patch.setattr(CSVLogger, "finalize", lambda *_: None)
        with pytest.raises(RuntimeError, match="power"):
            fit(config, cut)
    assert "running</span>: step 25 of 50" in (cut / "index.html").read_text()
    fit(config, cut, resume=True)

    for run in (whole, cut):
        names = sorted(p.name for p in (run / "pictures").iterdir())
        assert names == ["step-000025.png", "step-000050.png"]
        assert "finished</span>: step 50 of 50" in (run / "index.html").read_text()
        assert not list(run.rglob("*.part"))
    assert len(list(cut.glob("csv/version_*"))) == 2
    joined, expected = read_curves(cut), read_curves(whole)
    assert [step for step, _ in joined["train/pull_step"]] == [25, 50]
    assert joined.keys() == expected.keys()
    for column in ("train/loss_step", "train/push_step", "val/loss", "val/ap50", "val/sbd"):
        assert joined[column] == expected[column], column
    assert joined["train/loss_epoch"][0] == expected["train/loss_epoch"][0]  # not lost in the cut
    last = "pictures/step-000050.png"  # the colours, too, know the epoch before the cut
    assert (whole / last).read_bytes() == (cut / last).read_bytes()


def test_the_page_of_a_run_that_failed_says_why_and_where(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EmbeddingModule, "on_train_batch_end", cut_at(3))
    with pytest.raises(RuntimeError, match="power"):
        fit(load_config(config_file), tmp_path / "run")
    text = (tmp_path / "run" / "index.html").read_text()
    assert "stopped: RuntimeError: the power is gone" in text
    assert "step 3 of 4" in text


def test_a_replaced_run_leaves_no_tables_and_no_pictures(config_file: Path, tmp_path: Path) -> None:
    config = load_config(config_file)
    run = tmp_path / "run"
    fit(config, run)
    assert (run / "pictures" / "step-000002.png").is_file()
    longer = config.model_copy(update={"run": config.run.model_copy(update={"epoch_steps": 4})})
    (run / "pictures" / "mine.png").touch()
    fit(longer, run, overwrite=True)
    assert {p.name for p in (run / "pictures").iterdir()} == {"step-000004.png", "mine.png"}
    assert [step for step, _ in read_curves(run)["val/ap50"]] == [4]


def test_a_picture_that_cannot_be_drawn_or_written_stops_the_run(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("no picture")

    monkeypatch.setattr(writer, "draw_row", broken)
    with pytest.raises(ZeroDivisionError):
        fit(load_config(config_file), tmp_path / "run")


def test_outside_a_terminal_the_bar_leaves_a_line_per_validation_and_the_library_none(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config(config_file)
    fit(config, tmp_path / "silent")
    assert capsys.readouterr().out == ""
    fit(config, tmp_path / "told", progress=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines] == [["step", "2", "loss"], ["step", "4", "loss"]]
    assert all(word in lines[1] for word in ("pull", "push", "obj", "AP@0.5", "SBD"))


def test_the_bar_names_all_terms_and_scores_within_100_columns() -> None:
    metrics = {f"train/{name}_step": 0.00123 for name in (*TERMS, "adversarial", "loss")}
    metrics |= {"val/ap50": 0.6123, "val/sbd": 0.7, "train/pull_epoch": 1.0}
    line = terms_line(metrics)
    assert line.startswith("loss 0.00123 pull 0.00123 push 0.00123 reg")
    assert len(line.split()) == 2 * 9
    assert scores_line(metrics) == "AP@0.5 0.612 SBD 0.700"

    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    trainer: Any = SimpleNamespace(
        max_steps=120_000, global_step=60_000, callback_metrics=metrics, num_val_batches=[18]
    )
    bar = Bar(console)
    bar.on_train_start(trainer)
    bar._looked = -1e9
    bar.on_train_batch_end(trainer)
    bar.on_validation_batch_end(trainer, None, None, 4, 4)  # type: ignore[arg-type]
    bar.on_validation_end(trainer)
    bar.on_train_end(trainer)
    assert isinstance(console.file, io.StringIO)
    written = console.file.getvalue()
    assert "60000/120000" in written
    assert "validation 5/18" in written
    last = [line for line in written.replace("\r", "\n").splitlines() if "60000/120000" in line][-1]
    assert last.rstrip().endswith("AP@0.5 0.612 SBD 0.700")
    assert len(line) <= 115
