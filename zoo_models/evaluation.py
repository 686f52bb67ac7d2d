"""Score label files against the truth: one file against one, or two folders matched by name."""

from dataclasses import dataclass
from pathlib import Path

from zoo_models.errors import ImageError
from zoo_models.metrics import DatasetScores, Scores, aggregate, score
from zoo_models.prediction.decoding import SUFFIXES
from zoo_models.prediction.images import find_images, read_labels
from zoo_models.splits import data_file, split_names

LABEL_SUFFIXES = (
    "_labels",
    "_label",
    "_instances",
    "_masks",
    "_mask",
    "_prediction",
    "_predicted",
    "_pred",
    ".ome",
)
"""Left out when names are compared: nuclei_labels.ome.tif belongs to nuclei.png."""

OVERLAY = "_overlay"
"""Pictures with this ending are for the eye and hold no labels: not scored."""

STORE = "_labels.ome.zarr"
"""Stores with this ending are label images that `predict` has written."""


@dataclass(frozen=True)
class EvaluationRow:
    """Scores of one image; `name` is the name that both files share."""

    name: str
    scores: Scores


@dataclass(frozen=True)
class EvaluationTable:
    """Scores of every image, sorted by name, and of all together (see DatasetScores)."""

    predicted: Path
    truth: Path
    rows: tuple[EvaluationRow, ...]
    overall: DatasetScores

    def as_json(self) -> dict[str, object]:
        """The table as plain values for JSON."""
        return {
            "predicted": str(self.predicted),
            "truth": str(self.truth),
            "overall": self.overall.as_dict(),
            "images": [{"name": row.name, **row.scores.as_dict()} for row in self.rows],
        }


def evaluate(
    predicted: Path | str, truth: Path | str, *, split: str | None = None
) -> EvaluationTable:
    """Score predicted labels against true labels.

    Args:
        predicted: a label file, or a folder of them.
        truth: a label file, or a folder with a file of the same name for each prediction; the
            suffixes in LABEL_SUFFIXES and the file formats may differ.
        split: `truth` is a data folder (labels/, splits.json), and only this split is scored.

    Raises:
        ImageError: a file against a folder, files without a partner, unreadable labels, shapes
            that differ.
    """
    predicted, truth = Path(predicted), Path(truth)
    rows = tuple(
        EvaluationRow(name, _score_files(predicted_file, truth_file))
        for name, predicted_file, truth_file in _pairs(predicted, truth, split)
    )
    return EvaluationTable(predicted, truth, rows, aggregate([row.scores for row in rows]))


def _pairs(predicted: Path, truth: Path, split: str | None) -> list[tuple[str, Path, Path]]:
    """(shared name, predicted file, true file), sorted by name."""
    for path in (predicted, truth):
        if not path.exists():
            find_images([path])  # raises, with what lies near
    if _is_folder(predicted) != _is_folder(truth):
        kinds = ["a folder" if _is_folder(path) else "a file" for path in (predicted, truth)]
        raise ImageError(
            f"{predicted} is {kinds[0]}, {truth} is {kinds[1]}; expected two files or two folders"
        )
    if not _is_folder(predicted):
        if split is not None:
            raise ImageError(
                f"--split {split} was given with the file {predicted}; expected two folders: name "
                "a folder of predictions and a data folder"
            )
        return [(_shared_name(truth), predicted, truth)]
    ours = _by_name(predicted)
    if split is None:
        theirs = _by_name(truth)
    else:
        theirs = {n: data_file(truth, "labels", n) for n in split_names(truth, split)}
    lonely = [
        f"{len(missing)} of {folder} without partner ({_listed(missing)})"
        for folder, missing in (
            (predicted, sorted(ours.keys() - theirs.keys())),
            (truth, sorted(theirs.keys() - ours.keys())),
        )
        if missing
    ]
    if lonely:
        raise ImageError(
            f"label files do not pair up: {'; '.join(lonely)}; expected one prediction for every "
            "true file, of the same name: leave out or add files"
        )
    return [(name, ours[name], theirs[name]) for name in sorted(ours)]


def _by_name(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    stores = sorted(folder.glob(f"*{STORE}"))
    images = [p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES]
    for path in [*stores, *(find_images([folder]) if images or not stores else [])]:
        if path.stem.endswith(OVERLAY):
            continue
        name = _shared_name(path)
        if name in files:
            raise ImageError(
                f"{files[name]} and {path.name} both stand for '{name}', expected one file: "
                "remove the other"
            )
        files[name] = path
    return files


def _is_folder(path: Path) -> bool:
    """A Zarr store is one label image."""
    return path.is_dir() and path.suffix != ".zarr"


def _shared_name(path: Path) -> str:
    """File name without format and label suffixes: a_labels.ome.tif -> a."""
    name = path.stem
    while True:
        shorter = name
        for suffix in LABEL_SUFFIXES:
            shorter = shorter.removesuffix(suffix)
        if shorter in ("", name):  # a file called _labels.tif keeps its name
            return name
        name = shorter


def _score_files(predicted_file: Path, truth_file: Path) -> Scores:
    predicted, truth = read_labels(predicted_file), read_labels(truth_file)
    if predicted.shape != truth.shape:
        raise ImageError(
            f"{predicted_file} has the shape {predicted.shape}, {truth_file} {truth.shape}; "
            "expected equal shapes: compare labels of the same image"
        )
    return score(predicted, truth)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
