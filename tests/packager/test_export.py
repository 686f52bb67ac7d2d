"""A package is kept only when the zoo's own tests pass, and then other software can use it."""

import dataclasses
import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bioimageio.core
import bioimageio.spec
import numpy as np
import onnxruntime
import pytest
import torch
from bioimageio.core import Sample, Tensor
from ruyaml import YAML

from packager import export as exporting
from packager import sample_tensors, weights
from packager.card import Card
from packager.export import ExportReport, export, zip_folder
from zoo_models.checkpoint import Checkpoint, ClustererSettings, sha256
from zoo_models.errors import ExportError, InputError, OutputExistsError
from zoo_models.package import Package

FORMATS = ("pytorch_state_dict", "torchscript", "onnx")


def member(package: Path, name: str) -> bytes:
    with zipfile.ZipFile(package) as archive:
        return archive.read(name)


def description(package: Path) -> dict[str, Any]:
    content: dict[str, Any] = YAML(typ="safe").load(member(package, "rdf.yaml"))
    return content


def repacked(package: Path, folder: Path, old: str, new: str) -> Path:
    """The same package with `old` replaced in its description."""
    build = folder / "repacked"
    with zipfile.ZipFile(package) as archive:
        archive.extractall(build)
    text = (build / "rdf.yaml").read_text()
    assert old in text
    (build / "rdf.yaml").write_text(text.replace(old, new))
    return zip_folder(build, folder / "repacked.zip")


def blockwise(package: Path, raw: np.ndarray, weight_format: Any, n: int) -> np.ndarray:
    """What bioimageio.core stitches from tiles of parameter n: raw (1, C, Y, X) -> (1, D, Y, X)."""
    axes = ("batch", "channel", "y", "x")
    members: Any = {"input": Tensor.from_numpy(raw, dims=axes)}
    parameters: Any = {("input", axis): n for axis in "yx"}
    with zipfile.ZipFile(package) as archive:
        model = bioimageio.spec.load_model_description(archive, format_version="latest")
        with bioimageio.core.create_prediction_pipeline(
            model, weight_format=weight_format, devices=["cpu"]
        ) as pipeline:
            result = pipeline.predict_sample_with_blocking(
                Sample(members=members, stat={}, id="test"), ns=parameters
            )
    embeddings: np.ndarray = result.members["embeddings"].data.to_numpy()
    return embeddings


def whole(checkpoint: Checkpoint, raw: np.ndarray) -> np.ndarray:
    """One pass of the valid network over the whole mirrored image, cropped by hand."""
    network: Any = checkpoint.network()
    (halo, _), (shrink, _) = checkpoint.geometry.halo, checkpoint.geometry.shrink
    assert halo == shrink  # no further crop in this network
    around = np.pad(raw, ((0, 0), (0, 0), (halo, halo), (halo, halo)), mode="symmetric")
    with torch.no_grad():
        result: np.ndarray = network.valid(torch.from_numpy(around / 255 - 0.25).float()).numpy()
    return result


@pytest.fixture
def saves_time(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let exports of the same checkpoint take the ONNX file of the package made before."""
    content = member(package, "weights.onnx")
    monkeypatch.setattr(weights, "write_onnx", lambda _, __, path, names: path.write_bytes(content))


def test_the_report_tells_what_was_checked(report: ExportReport) -> None:
    assert report.sha256 == sha256(report.package)
    assert report.size == report.package.stat().st_size
    assert report.differences.keys() == {"torchscript", "onnx"}
    assert max(report.differences.values()) < 1e-5
    for form in FORMATS:
        assert f"Reproduce test outputs from test inputs ({form})" in report.passed
        assert sum(form in name for name in report.passed) == 7  # 3 sizes, 2 batch sizes each


def test_the_validators_own_command_finds_nothing(package: Path) -> None:
    command = [sys.executable, "-m", "bioimageio.core", "validate-format", str(package)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "valid-format" in done.stdout
    assert "⚠" not in done.stdout


@pytest.mark.parametrize("level", [20, 30, 35, 50])
def test_no_level_of_the_validator_has_a_warning(package: Path, level: Any) -> None:
    context = bioimageio.spec.ValidationContext(warning_level=level, log_warnings=False)
    with zipfile.ZipFile(package) as archive, context:
        summary = bioimageio.spec.load_description(archive).validation_summary
    assert summary.status == "valid-format"
    assert [w.msg for d in summary.details for w in d.warnings] == []


def test_files_in_the_package_are_those_it_declares(package: Path, repository: Path) -> None:
    content = description(package)
    architecture = content["weights"]["pytorch_state_dict"]["architecture"]
    clusterer = content["config"]["spoco_zoo"]["clusterer"]
    assert content["attachments"] == [{k: clusterer[k] for k in ("source", "sha256")}]
    shipped = {
        architecture["source"]: repository / "zoo_models/architectures/unet_valid.py",
        clusterer["source"]: repository / "zoo_models/postprocessing/basin_merging.py",
    }
    for name, original in shipped.items():
        assert member(package, name) == original.read_bytes()
    assert clusterer["sha256"] == sha256(repository / "zoo_models/postprocessing/basin_merging.py")
    with zipfile.ZipFile(package) as archive:
        names = sorted(archive.namelist())
    assert names == [
        "README.md",
        "basin_merging.py",
        "cover.png",
        "rdf.yaml",
        "sample_input.tif",
        "sample_output.tif",
        "test_input.npy",
        "test_output.npy",
        "unet_valid.py",
        "weights.onnx",
        "weights.pt",
        "weights.torchscript.pt",
    ]


# bioimageio.spec leaves the files open that it reads; the interpreter says so.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
def test_our_own_reader_finds_what_was_put_in(
    package: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    with zipfile.ZipFile(package) as archive:
        archive.extractall(tmp_path)
    found = Package.load(tmp_path)
    assert found.geometry == checkpoint.geometry
    assert found.normalisation == checkpoint.normalisation
    assert (found.in_channels, found.embedding_dim) == (1, 3)


def test_no_file_tells_where_it_was_made(package: Path, repository: Path) -> None:
    with zipfile.ZipFile(package) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            for place in (repository, Path(sys.prefix)):
                assert str(place).encode() not in content, name
            if name.endswith(".torchscript.pt"):  # a zip in a zip, its records packed
                with zipfile.ZipFile(io.BytesIO(content)) as records:
                    for record in records.namelist():
                        assert str(repository).encode() not in records.read(record), record


# Beyond the package's own test: other runtimes, straight from the zip, at a size never traced.
@pytest.mark.parametrize("form", ["torchscript", "onnx"])
def test_runtimes_alone_give_the_networks_numbers(
    package: Path, checkpoint: Checkpoint, form: str
) -> None:
    content = member(
        package, {"torchscript": "weights.torchscript.pt", "onnx": "weights.onnx"}[form]
    )
    image = np.random.default_rng(1).random((2, 1, 128, 64), np.float32)
    with torch.no_grad():
        expected = checkpoint.network()(torch.from_numpy(image)).numpy()
        if form == "onnx":
            (found,) = onnxruntime.InferenceSession(content).run(None, {"input": image})
        else:
            found = torch.jit.load(io.BytesIO(content))(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("form", "n"), [("pytorch_state_dict", 0), ("torchscript", 2), ("onnx", 1)]
)
def test_blockwise_prediction_equals_the_whole(
    package: Path, checkpoint: Checkpoint, form: str, n: int
) -> None:
    raw = np.random.default_rng(2).uniform(0, 255, (1, 1, 104, 68)).astype(np.float32)
    expected = whole(checkpoint, raw)
    found = blockwise(package, raw, form, n)
    assert found.shape == expected.shape == (1, 3, 104, 68)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_the_test_tensors_show_a_wrong_halo(package: Path, tmp_path: Path) -> None:
    raw = np.load(io.BytesIO(member(package, "test_input.npy")))
    answer = np.load(io.BytesIO(member(package, "test_output.npy")))
    inner = (..., slice(20, -20), slice(20, -20))
    right = blockwise(package, raw, "torchscript", 0)[inner]
    np.testing.assert_allclose(right, answer[inner], atol=1e-5 * np.abs(answer).max())
    wrong_package = repacked(package, tmp_path, "halo: 20", "halo: 16")
    wrong = blockwise(wrong_package, raw, "torchscript", 0)[inner]
    assert np.abs(wrong - answer[inner]).max() > 0.1 * np.abs(answer).max()


def test_a_package_repeats_its_bytes(
    package: Path, checkpoint: Checkpoint, card: Card, tmp_path: Path, saves_time: None
) -> None:
    again = export(checkpoint, card, tmp_path / "again.zip").package
    differing = []
    with zipfile.ZipFile(package) as first, zipfile.ZipFile(again) as second:
        assert [i.date_time for i in first.infolist()] == [i.date_time for i in second.infolist()]
        differing = [n for n in first.namelist() if first.read(n) != second.read(n)]
    # Within one process torch numbers traced classes on; test_weights.py compares processes.
    assert differing in ([], ["rdf.yaml", "weights.torchscript.pt"])
    lines = [str(description(p)).replace(_torchscript_sha(p), "") for p in (package, again)]
    assert lines[0] == lines[1]


def _torchscript_sha(package: Path) -> str:
    return str(description(package)["weights"]["torchscript"]["sha256"])


def test_equal_folders_make_equal_zips(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for name in ("one", "two")[:: 1 if folder == "a" else -1]:
            (tmp_path / folder / name).write_text(name * 100)
    packages = [zip_folder(tmp_path / f, tmp_path / f"{f}.zip") for f in ("a", "b")]
    assert packages[0].read_bytes() == packages[1].read_bytes()


def test_weights_of_another_network_leave_nothing(
    make: Callable[..., Checkpoint], card: Card, tmp_path: Path, saves_time: None
) -> None:
    with pytest.raises(ExportError, match=r"differ from the network.*onnx"):
        export(make(seed=1), card, tmp_path / "new" / "discs.zip")
    assert not list(tmp_path.iterdir())


def test_a_failing_zoo_test_leaves_nothing(
    checkpoint: Checkpoint,
    card: Card,
    tmp_path: Path,
    saves_time: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answer_wrongly(*args: Any) -> sample_tensors.TensorPair:
        pair = real(*args)
        return dataclasses.replace(pair, given=pair.given * np.float32(1.1))

    real = sample_tensors.make_pair
    monkeypatch.setattr(sample_tensors, "make_pair", answer_wrongly)
    with pytest.raises(ExportError, match=r"zoo's test of pytorch_state_dict.*disagree"):
        export(checkpoint, card, tmp_path / "discs.zip")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"description": "x" * 600}, "Description longer than 512"),  # as a warning
        ({"citations": ()}, "cite.*FAIR"),  # as an alert
        ({"licence": "My own"}, "license"),  # as an error
    ],
)
def test_a_warning_of_the_validator_leaves_what_was_there(
    checkpoint: Checkpoint,
    card: Card,
    tmp_path: Path,
    saves_time: None,
    change: dict[str, Any],
    named: str,
) -> None:
    out = tmp_path / "discs.zip"
    out.write_text("an earlier package")
    with pytest.raises(ExportError, match=named) as caught:
        export(checkpoint, card.model_copy(update=change), out, overwrite=True)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["discs.zip"]
    assert out.read_text() == "an earlier package"


def test_an_unreachable_name_server_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        loc, msg, severity = (), "[Errno -2] Name or service not known", 20

    class Detail:
        errors, warnings = (Entry(),), ()

    class Summary:
        details, status = (Detail(),), "failed"

    with pytest.raises(ExportError, match="github_user"):
        exporting._refuse_faults(Summary(), "validation")  # type: ignore[arg-type]


def test_impossible_requests_are_refused_at_once(
    checkpoint: Checkpoint, card: Card, tmp_path: Path
) -> None:
    there = tmp_path / "there.zip"
    there.write_text("an earlier package")
    (tmp_path / "folder.zip").mkdir()
    two = card.model_copy(update={"input_channels": ("red", "green")})
    cases = [
        (OutputExistsError, "exists already", card, there),
        (InputError, r"ends with \.zip", card, tmp_path / "discs.tar"),
        (InputError, "found a folder", card, tmp_path / "folder.zip"),
        (InputError, "2 input channel", two, tmp_path / "discs.zip"),
    ]
    for error, message, used, out in cases:
        with pytest.raises(error, match=message):
            export(checkpoint, used, out)
    assert there.read_text() == "an earlier package"


def test_an_unknown_clusterer_is_refused(
    checkpoint: Checkpoint, card: Card, tmp_path: Path
) -> None:
    other = dataclasses.replace(checkpoint, clusterer=ClustererSettings("magic"))
    with pytest.raises(InputError, match="magic"):
        export(other, card, tmp_path / "discs.zip")
    assert not list(tmp_path.iterdir())
