"""Make a package: build it aside, let the zoo's own tests judge it, and only then put it in place.

checkpoint, card -> files in a temporary folder -> rdf.yaml with their sha256
                 -> the tiling certificate: every consumer's placement against one pass
                 -> zip, the same bytes for the same input
                 -> validation at the strictest level, the zoo's test on every weight format
                 -> renamed into place; on any fault nothing is left behind
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import bioimageio.core
import bioimageio.spec
import numpy as np
import torch
from bioimageio.spec.summary import ValidationSummary
from numpy.typing import NDArray

from packager import sample_tensors, weights
from packager.card import Card
from packager.certificate import Certificate
from packager.certify import certify, expect_promised
from packager.describe import COVER, RDF, README, Digests, Subject, describe
from packager.documents import cover, readme
from packager.kinds import Product, Wanted, expect_title_fits
from packager.kinds import product as make_product
from packager.sample_tensors import TENSORS
from packager.weights import WEIGHTS, WeightFormat
from zoo_models import architectures
from zoo_models.checkpoint import Checkpoint, sha256
from zoo_models.errors import ExportError, InputError, OutputExistsError
from zoo_models.postprocessing import build_clusterer, clusterer_file

LEVELS: tuple[Literal[50], Literal[20]] = (50, 20)
"""Warning levels of the validator: at 50 it names all warnings, at 20 each of them is an error."""

NOTE = 20
"""The zoo's test reports its agreement figures as warnings of this severity."""

TOLERANCE = 1e-4
"""Largest difference between a weight file and the network, relative to the largest value."""

ZIP_DATE = (1980, 1, 1, 0, 0, 0)
"""A zip stores a time per file; a fixed one keeps packages equal byte for byte."""


@dataclass(frozen=True)
class ExportReport:
    """What was made, and what was checked before it was kept.

    differences: weight format -> largest difference to the network at sizes never traced, relative
        to the network's largest value.
    passed: names of the zoo's own tests that passed.
    certificate: what each consumer makes of it.
    """

    package: Path
    sha256: str
    size: int
    differences: Mapping[str, float]
    passed: tuple[str, ...]
    certificate: Certificate


def export(
    source: Checkpoint,
    card: Card,
    out: Path,
    wanted: Wanted = Wanted(),  # noqa: B008 (frozen)
    *,
    overwrite: bool = False,
) -> ExportReport:
    """Write a package that bioimageio.core, ilastik and JDLL load, and that tiles as it promises.

    `wanted`: see `packager.kinds`; by default embeddings, for every consumer.

    Raises:
        OutputExistsError: `out` exists and `overwrite` is false.
        InputError: `out` is no .zip name, or the card and the checkpoint do not fit together.
        ExportError: the package did not pass; nothing is left of it.
    """
    _refuse_impossible(source, card, out, overwrite=overwrite)
    product = make_product(
        source,
        card.input_channels,
        kind=wanted.kind,
        target=wanted.target,
        teacher=wanted.teacher,
    )
    expect_title_fits(card.title, product.kind)
    with tempfile.TemporaryDirectory(prefix="spoco-zoo-") as folder:
        build = Path(folder, "build")
        build.mkdir()
        image = _write_graph(source, card, product, build)
        differences = _differences(product, build)
        certificate = certify(product, build, source.normalisation)
        expect_promised(certificate, product, wanted.target)
        _write_words(Subject(source, card, product, certificate), image, build)
        package = zip_folder(build, Path(folder, out.name))
        validate(package)
        passed = tuple(name for form in product.formats for name in run_zoo_test(package, form))
        report = ExportReport(
            out, sha256(package), package.stat().st_size, differences, passed, certificate
        )
        _put_in_place(package, out)
    return report


def _refuse_impossible(source: Checkpoint, card: Card, out: Path, *, overwrite: bool) -> None:
    if out.suffix != ".zip":
        raise InputError(f"{out}: a package is a .zip file; give a name that ends with .zip.")
    if out.is_dir():
        raise InputError(f"{out}: found a folder; give the name of a file.")
    if out.exists() and not overwrite:
        raise OutputExistsError(f"{out} exists already: choose another name or --overwrite.")
    build_clusterer(source.clusterer)
    if len(card.input_channels) != source.in_channels:
        raise InputError(
            f"The card names {len(card.input_channels)} input channel(s), the network takes "
            f"{source.in_channels}; correct input_channels in the card."
        )


def _write_graph(
    source: Checkpoint, card: Card, product: Product, build: Path
) -> NDArray[np.float32]:
    """Test tensors, weights and shipped sources; returns the sample image c(z)yx."""
    image = sample_tensors.read_sample(card.sample.file, source)
    pair = sample_tensors.make_pair(source, product, image)
    for name, tensor in (("input", pair.taken), ("output", pair.given)):
        sample_tensors.write_npy(build / TENSORS[f"test_{name}"], tensor)
        sample_tensors.write_tiff(build / TENSORS[f"sample_{name}"], tensor)
    taken = source.normalisation.apply(pair.taken) if product.takes_image else pair.taken
    _write_weights(product, torch.from_numpy(taken), build)
    _copy_shipped(source, product, build)
    return image


def _write_weights(product: Product, example: torch.Tensor, build: Path) -> None:
    for form in product.formats:
        path = build / WEIGHTS[form]
        if form == "pytorch_state_dict":
            weights.write_state_dict(product.graph, path)
        elif form == "onnx":
            names = (product.takes.id, product.gives.id)
            weights.write_onnx(product.graph, example, path, names=names)
        elif product.scripted:
            weights.write_scripted(product.graph, path)
        else:
            weights.write_torchscript(product.graph, example, path)


def _copy_shipped(source: Checkpoint, product: Product, build: Path) -> None:
    """The very files that run here: the clusterer's, and the network's where it is rebuilt."""
    files = [clusterer_file(product.clusterer.name)]
    if "pytorch_state_dict" in product.formats:
        files.append(Path(architectures.__file__).with_name(f"{source.architecture}.py"))
    for file in files:
        shutil.copyfile(file, build / file.name)


def _write_words(subject: Subject, image: NDArray[np.float32], build: Path) -> None:
    """Cover, README and description; the cover shows the sample image as it will be segmented."""
    source, product = subject.checkpoint, subject.product
    normalised = source.normalisation.apply(image)
    embeddings = sample_tensors.embed(source, normalised, with_teacher=product.with_teacher)
    labels = build_clusterer(product.clusterer)(embeddings)
    (build / COVER).write_bytes(cover(image, embeddings[: source.embedding_dim], labels))
    (build / README).write_text(readme(subject), encoding="utf-8", newline="\n")
    description = describe(subject, _digests(source, build))
    (build / RDF).write_text(description, encoding="utf-8", newline="\n")


def _digests(source: Checkpoint, build: Path) -> Digests:
    files = {file.name: sha256(file) for file in sorted(build.iterdir())}
    with tempfile.TemporaryDirectory(prefix="spoco-zoo-") as folder:
        checkpoint = Path(folder, "checkpoint.safetensors")
        source.save(checkpoint)
        return Digests(files, sha256(checkpoint))


def _differences(product: Product, build: Path) -> dict[str, float]:
    shapes = weights.untraced_shapes(product.axes, len(product.takes.channels))
    found: dict[str, float] = {
        form: weights.largest_difference(product.graph, build / WEIGHTS[form], shapes)
        for form in product.formats
        if form != "pytorch_state_dict"
    }
    wrong = [f"{form} by {value:.1e}" for form, value in found.items() if not value <= TOLERANCE]
    if wrong:
        raise ExportError(
            f"Weights differ from the network at sizes never traced: {', '.join(wrong)} of its "
            f"largest value (at most {TOLERANCE:.0e} expected); no package was kept."
        )
    return found


def zip_folder(folder: Path, package: Path) -> Path:
    """Zip the files of a folder, sorted, without times: equal folders give equal bytes."""
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for file in sorted(folder.iterdir()):
            info = zipfile.ZipInfo(file.name, ZIP_DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            info.external_attr = 0o644 << 16
            archive.writestr(info, file.read_bytes(), compresslevel=6)
    return package


def validate(package: Path) -> None:
    """Validate the zip at the strictest level.

    Raises:
        ExportError: an error, or a warning of any severity.
    """
    for level in LEVELS:
        context = bioimageio.spec.ValidationContext(warning_level=level, log_warnings=False)
        # The library would leave a zip open that it opened itself.
        with zipfile.ZipFile(package) as archive, context:
            description = bioimageio.spec.load_description(archive, perform_io_checks=True)
        _refuse_faults(description.validation_summary, "the validator's strictest level")


def run_zoo_test(package: Path, weight_format: WeightFormat) -> tuple[str, ...]:
    """bioimageio.core's own test of one weight format, on the CPU. Names of the tests passed.

    Raises:
        ExportError: a test failed, or passed only with mismatching elements.
    """
    quiet = bioimageio.spec.ValidationContext(log_warnings=False)
    with zipfile.ZipFile(package) as archive, quiet:
        description = bioimageio.spec.load_model_description(archive, perform_io_checks=True)
        summary = bioimageio.core.test_description(
            description, weight_format=weight_format, devices=["cpu"]
        )
    _refuse_faults(summary, f"the zoo's test of {weight_format}", tolerated=NOTE)
    if summary.status != "passed":
        raise ExportError(f"The zoo's test of {weight_format} ended with {summary.status!r}.")
    return tuple(d.name for d in summary.details if d.loc[:2] == ("weights", weight_format))


def _refuse_faults(summary: ValidationSummary, stage: str, *, tolerated: int = 0) -> None:
    """Raise for every error, and every warning more severe than `tolerated`."""
    faults = [
        f"{'.'.join(map(str, entry.loc)) or 'package'}: {' '.join(entry.msg.split())}"
        for detail in summary.details
        for entry in (*detail.errors, *(w for w in detail.warnings if w.severity > tolerated))
    ]
    if any("[Errno" in fault for fault in faults):
        faults.append("it looks up a github_user that it does not know: connect, or name another")
    if faults or summary.status == "failed":
        raise ExportError(f"The package failed {stage}: {_join(faults)}; no package was kept.")


def _join(faults: Iterable[str], limit: int = 5) -> str:
    faults = list(faults)
    more = f" and {len(faults) - limit} more" if len(faults) > limit else ""
    return "; ".join(faults[:limit]) + more


def _put_in_place(package: Path, out: Path) -> None:
    """Copy beside `out` first, so that the last step is a rename on one file system."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.part")
    try:
        shutil.copyfile(package, partial)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
