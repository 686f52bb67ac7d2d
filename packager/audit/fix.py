"""A third-party package with a right declaration: only numbers in its description change.

The text is edited in place, value by value, so that comments, order and style stay as they were::

    size: {min: 64, step: 16}    ->  size: {min: 112, step: 16}
    - type: space                ->  - halo: 48
      id: y                            type: space
                                       id: y

The changed package is validated by bioimageio.spec and audited again before it gets its name.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from packager.audit.audit import Audit, audit
from packager.audit.declared import declared_axes
from packager.audit.findings import is_fault
from packager.audit.model import Content, Model, description_name, read_bytes, read_model
from packager.audit.processing import test_tensors
from packager.audit.proposal import ProposedAxis
from packager.audit.runners import match
from zoo_models.errors import InputError, OutputExistsError, PackageError

FIXABLE = (
    "halo-too-small",
    "halo-off-period",
    "step-off-period",
    "min-off-period",
    "min-off-step",
    "different-ranges",
    "declared-size-fails",
    "message-limit",
)
"""Rules whose faults lie in the declaration alone. (Loading faults are warnings, and stay.)"""

Edit = tuple[int, int, str]
"""Replace the characters start..stop of the description by a text."""


def expect_new(file: Path, suffix: str, *, overwrite: bool) -> None:
    """Refuse a name that cannot be written.

    Raises:
        InputError: another suffix, or its folder does not exist.
        OutputExistsError: it exists and `overwrite` is false.
    """
    if file.suffix != suffix:
        raise InputError(f"{file}: expected a name that ends with {suffix}.")
    if not file.parent.is_dir() or file.is_dir():
        raise InputError(f"{file}: expected a file in a folder that exists; make the folder.")
    if file.exists() and not overwrite:
        raise OutputExistsError(f"{file} exists already: choose another name or --overwrite.")


def fix_package(found: Audit, out: Path, *, trust: bool = False) -> Audit:
    """Write the package of `found` with the proposed declaration to `out`; returns its new audit.

    Raises:
        PackageError: the declaration is right already, is not all that is wrong, or the changed
            package does not pass; nothing is written then.
    """
    _expect_fixable(found)
    with tempfile.TemporaryDirectory(prefix=".spoco-zoo-", dir=out.parent) as folder:
        changed = Path(folder, out.name)
        with read_model(found.source) as (model, content):
            _write(model, content, found.proposal.axes, changed)
        _validate(changed)
        again = audit(changed, trust=trust)
        left = [f for f in again.findings if f.severity == "error" or f.rule in FIXABLE]
        left = [f for f in left if is_fault(f)]
        if left or again.unmeasured:
            told = again.unmeasured or "; ".join(f"{f.rule} {f.axis}" for f in left)
            raise PackageError(
                f"{found.source}: the proposed declaration does not pass the audit ({told}); "
                "nothing was written."
            )
        os.replace(changed, out)
    return again


def _expect_fixable(found: Audit) -> None:
    where = f"{found.source} cannot be mended by its declaration"
    if found.unmeasured:
        raise PackageError(f"{where}: nothing was measured ({found.unmeasured}).")
    if not found.proposal.axes:
        raise PackageError(f"{where}: {found.proposal.reason}.")
    deeper = [f for f in found.findings if f.severity == "error" and f.rule not in FIXABLE]
    if deeper:
        raise PackageError(f"{where}: {deeper[0].rule}: {deeper[0].message} {deeper[0].hint}.")
    if not any(f.rule in FIXABLE and is_fault(f) for f in found.findings):
        raise PackageError(f"{found.source}: its declaration is right already; nothing to mend.")


def _write(model: Model, content: Content, axes: tuple[ProposedAxis, ...], out: Path) -> None:
    name = description_name(model.source, content)
    text = read_bytes(content, name).decode()
    changed = corrected(text, model, axes)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in _members(content, text):
            if member != name:
                archive.writestr(member, read_bytes(content, member))
        archive.writestr(name, changed)


def _members(content: Content, text: str) -> list[str]:
    """Files of the package: all of a zip; of a folder those that the description names."""
    if isinstance(content, zipfile.ZipFile):
        return [info.filename for info in content.infolist() if not info.is_dir()]
    folder = content.parent
    names = {value for value in _scalars(_compose(text)) if "\n" not in value and len(value) < 256}
    return sorted(
        n
        for n in names
        if n
        and not Path(n).is_absolute()
        and (folder / n).is_file()
        and (folder / n).resolve().is_relative_to(folder.resolve())
    )


def corrected(text: str, model: Model, axes: tuple[ProposedAxis, ...]) -> str:
    """The description's text with min, step and halo of the space axes replaced.

    Raises:
        PackageError: the description is written in a way that cannot be edited in place.
    """
    root = _compose(text)
    edit = _edits_04 if model.format_version.startswith("0.4") else _edits_05
    edits = sorted(edit(root, model, axes), reverse=True)
    for start, stop, value in edits:
        text = text[:start] + value + text[stop:]
    return text


def _edits_05(root: Any, model: Model, axes: tuple[ProposedAxis, ...]) -> Iterator[Edit]:
    image = model.inputs.index(model.image)
    inputs, outputs = _get(root, "inputs").value, _get(root, "outputs").value
    for axis, new in zip(model.image.space, axes, strict=True):
        at = model.image.axes.index(axis)
        size = _get(_get(inputs[image], "axes").value[at], "size")
        if new.step and axis.reference is None:
            yield _scalar(_get(size, "min"), new.minimum)
            yield _scalar(_get(size, "step"), new.step)
    for output, node in zip(model.outputs, outputs, strict=True):
        if declared_axes(model, output) is None:
            continue
        for axis, new in zip(model.image.space, axes, strict=True):
            own = match(output, axis, model.image)
            mapping = _get(node, "axes").value[output.axes.index(own)]
            if new.halo:
                yield _set(mapping, "halo", str(new.halo))
            elif own.halo:
                raise PackageError(f"{model.source}: a halo of 0 has to be left out by hand.")
            if own.reference is None and new.halo:  # a halo needs a size by reference
                size = _get(mapping, "size")
                text = f"{{tensor_id: {model.image.id}, axis_id: {axis.id}}}"
                yield size.start_mark.index, size.end_mark.index, text


def _edits_04(root: Any, model: Model, axes: tuple[ProposedAxis, ...]) -> Iterator[Edit]:
    image = model.inputs.index(model.image)
    inputs, outputs = _get(root, "inputs").value, _get(root, "outputs").value
    shape = _get(inputs[image], "shape")
    for axis, new in zip(model.image.space, axes, strict=True):
        at = model.image.axes.index(axis)
        if new.step:
            yield _scalar(_get(shape, "min").value[at], new.minimum)
            yield _scalar(_get(shape, "step").value[at], new.step)
    for output, node in zip(model.outputs, outputs, strict=True):
        if declared_axes(model, output) is None:
            continue
        halo = [0] * len(output.axes)
        for axis, new in zip(model.image.space, axes, strict=True):
            halo[output.axes.index(match(output, axis, model.image))] = new.halo
        yield _set(node, "halo", f"[{', '.join(map(str, halo))}]")


def _compose(text: str) -> Any:
    from ruyaml import YAML

    return YAML(typ="safe", pure=True).compose(text)


def _scalars(node: Any) -> Iterator[str]:
    if isinstance(node.value, str):
        yield node.value
        return
    for child in node.value:
        for part in child if isinstance(child, tuple) else (child,):
            yield from _scalars(part)


def _find(mapping: Any, key: str) -> Any:
    pairs = mapping.value if mapping.id == "mapping" else []
    return next((value for name, value in pairs if name.value == key), None)


def _get(mapping: Any, key: str) -> Any:
    node = _find(mapping, key)
    if node is None:
        line = mapping.start_mark.line + 1
        raise PackageError(f"The description has no {key!r} at line {line}; change it by hand.")
    return node


def _scalar(node: Any, value: int) -> Edit:
    return node.start_mark.index, node.end_mark.index, str(value)


def _set(mapping: Any, key: str, value: str) -> Edit:
    """Replace the value of a key, or put the key first."""
    node = _find(mapping, key)
    if node is not None:
        stop = node.end_mark.index
        if node.id == "sequence" and not node.flow_style:
            raise PackageError(
                f"The description's {key} at line {node.start_mark.line + 1} is a block list; "
                "write it as [..] and try again."
            )
        return node.start_mark.index, stop, value
    first = mapping.value[0][0].start_mark
    join = ", " if mapping.flow_style else "\n" + " " * first.column
    return first.index, first.index, f"{key}: {value}{join}"


def _validate(package: Path) -> None:
    """The format, by bioimageio.spec, and the test tensors against the new sizes.

    Raises:
        PackageError: either does not fit.
    """
    from bioimageio.spec.model.v0_5 import validate_tensors

    with read_model(package) as (model, content):
        tensors: Mapping[str, Any] = test_tensors(model, content)
        described = {
            d.id: (d, tensors[t.id])
            for d, t in zip(model.description.inputs, model.inputs, strict=True)
        }
        described |= {d.id: (d, None) for d in model.description.outputs}
        try:
            validate_tensors(described, "test_tensor", pad_inputs="allow")
        except ValueError as error:
            line = " ".join(str(error).split())
            raise PackageError(
                f"{package.name}: the package's test tensor does not fit the right declaration "
                f"({line}); nothing was written."
            ) from error
