"""Rules that need the description alone: what stops or spoils a package before its network runs.

The sentence above each rule is the specification's or what the consumers were seen to do
(bioimageio.core 0.11, ilastik 1.4.2 with tiktorch 26.5, JDLL 0.6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from packager.audit.findings import Finding, Severity
from packager.audit.model import Model, Tensor
from packager.audit.processing import PER_SAMPLE
from packager.audit.runners import NetworkStops, match
from packager.consumers import ilastik, jdll
from packager.consumers.placement import DeclaredAxis, Refusal

Rule = Callable[[Model], Iterator[Finding]]

JDLL_STOPS = ("softmax", "scale_mean_variance", "stardist_postprocessing")
LARGEST_OPSET = 18
ILASTIK_ORDER = ("batch", "channel", "z", "y", "x")


def declared_axes(model: Model, output: Tensor) -> tuple[DeclaredAxis, ...] | None:
    """The output's space axes in the image's order as consumers read them; None: it has others."""
    image, axes = model.image, []
    if len(output.space) != len(image.space):
        return None
    for own in image.space:
        try:
            axis = match(output, own, image)
        except NetworkStops:
            return None
        offset = axis.offset if axis.reference else axis.minimum - own.minimum
        axes.append(DeclaredAxis(own.minimum, own.step, axis.halo, axis.scale, offset))
    return tuple(axes)


def declared_findings(model: Model) -> list[Finding]:
    """Everything that the description tells without running the network."""
    return [finding for rule in RULES for finding in rule(model)]


def cannot_load(model: Model) -> dict[str, str]:
    """Consumer -> why it loads nothing of this package at all."""
    reasons: dict[str, str] = {}
    for finding in declared_findings(model):
        for consumer in (ilastik.NAME, jdll.NAME):
            if finding.rule in STOPPERS.get(consumer, ()):
                reasons.setdefault(consumer, finding.message)
    return reasons


STOPPERS: Mapping[str, tuple[str, ...]] = {
    ilastik.NAME: (
        "text-as-mapping",
        "custom-postprocessing",
        "ilastik-weights",
        "ilastik-one-tensor",
        "ilastik-axes",
    ),
    jdll.NAME: (
        "text-as-mapping",
        "custom-postprocessing",
        "jdll-postprocessing",
        "jdll-weights",
        "jdll-axes",
    ),
}
"""Rules whose finding means that the consumer does not load the package."""


def _found(
    rule: str, severity: Severity, message: str, hint: str, *, axis: str = "", declared: str = ""
) -> Finding:
    return Finding(rule, severity, axis, declared, "", message, hint)


def _text_as_mapping(model: Model) -> Iterator[Finding]:
    # bioimageio.spec writes `documentation` as a mapping from 0.5.11 on: JDLL crashes on it,
    # ilastik's bioimageio.spec 0.5.9.1 rejects it.
    if model.mappings:
        yield _found(
            "text-as-mapping",
            "warning",
            f"ilastik and JDLL do not load a package whose {' and '.join(model.mappings)} is a "
            "mapping.",
            "write plain file names (documentation: README.md) and format_version 0.5.9",
            declared=f"format {model.format_version}",
        )


def _postprocessing(model: Model) -> Iterator[Finding]:
    for output in model.outputs:
        # Post-processing op `id: custom` (spec >= 0.5.10): ilastik and JDLL refuse the whole model.
        if "custom" in output.processing:
            yield _found(
                "custom-postprocessing",
                "warning",
                "ilastik and JDLL refuse a package with custom post-processing; core runs its "
                "Python without asking, per block when blockwise.",
                "leave the step out and attach the file instead",
                axis=output.id,
                declared="custom",
            )
        # `softmax`, `scale_mean_variance`, `stardist_postprocessing` also stop JDLL.
        stops = [step for step in output.processing if step in JDLL_STOPS]
        if stops:
            yield _found(
                "jdll-postprocessing",
                "warning",
                f"JDLL does not know {', '.join(stops)} and stops.",
                "put the step into the network's graph",
                axis=output.id,
                declared=", ".join(stops),
            )
        statistics = [step for step in output.processing if step in PER_SAMPLE]
        if statistics:
            yield _found(
                "postprocessing-statistics",
                "error",
                f"{', '.join(statistics)} takes its statistics from each tile's answer: tiles "
                "differ in contrast.",
                "use fixed constants (scale_linear)",
                axis=output.id,
                declared=", ".join(statistics),
            )


def _weights(model: Model) -> Iterator[Finding]:
    forms = {w.form: w for w in model.weights}
    named = ", ".join(forms) or "none"
    # ilastik uses torchscript first, then pytorch_state_dict; never ONNX.
    if not forms.keys() & {"torchscript", "pytorch_state_dict"}:
        message = "ilastik runs TorchScript or state dicts, never ONNX: it cannot run this package."
        yield _found("ilastik-weights", "warning", message, "add TorchScript", declared=named)
    if "torchscript" not in forms:
        runs = "onnx" in forms or any(f.startswith(("tensorflow", "keras")) for f in forms)
        message = (
            "JDLL needs its ONNX or TensorFlow engine for this package, TorchScript is not there."
            if runs
            else "JDLL has no engine for these weights: it cannot run this package."
        )
        rule, severity = ("jdll-engine", "note") if runs else ("jdll-weights", "warning")
        severity_: Severity = "note" if severity == "note" else "warning"
        yield _found(rule, severity_, message, "add traced TorchScript", declared=named)
    opset = forms["onnx"].opset if "onnx" in forms else None
    # ONNX opset <= 18.
    if opset is not None and opset > LARGEST_OPSET:
        message = f"Runtimes of the consumers read ONNX opsets up to {LARGEST_OPSET}."
        hint = f"export with opset {LARGEST_OPSET}"
        yield _found("onnx-opset", "warning", message, hint, declared=f"opset {opset}")


def _one_tensor(model: Model) -> Iterator[Finding]:
    # ilastik: one input, one output; axes batch, channel, z, y, x, same order in both.
    counts = f"{len(model.inputs)} in, {len(model.outputs)} out"
    if (len(model.inputs), len(model.outputs)) != (1, 1):
        message = "ilastik takes packages with one input and one output only."
        hint = "make a package with one of each for ilastik"
        yield _found("ilastik-one-tensor", "warning", message, hint, declared=counts)
        return
    orders = [
        [a.kind if a.kind in ("batch", "channel") else a.id for a in tensor.axes]
        for tensor in (model.inputs[0], model.outputs[0])
    ]
    expected = [name for name in ILASTIK_ORDER if name in orders[0]]
    if orders[0] != orders[1] or orders[0] != expected:
        message = "ilastik takes axes batch, channel, z, y, x, in this order in input and output."
        told = f"{' '.join(orders[0])} -> {' '.join(orders[1])}"
        yield _found("ilastik-axes", "warning", message, "reorder the axes", declared=told)


def _jdll_axes(model: Model) -> Iterator[Finding]:
    # JDLL: axis ids only z/y/x.
    tensors = (*model.inputs, *model.outputs)
    odd = sorted({a.id for t in tensors for a in t.space if a.id not in ("z", "y", "x")})
    if odd:
        message = "JDLL knows the space axes z, y and x only."
        yield _found("jdll-axes", "warning", message, "rename the axes", declared=", ".join(odd))
    # No `config.deepimagej`, or with `allow_tiling: true`.
    if model.deepimagej:
        message = "config.deepimagej without allow_tiling: true forbids JDLL to tile."
        yield _found(
            "jdll-tiling", "warning", message, "set allow_tiling: true or drop the section"
        )


def _preprocessing(model: Model) -> Iterator[Finding]:
    for tensor in model.inputs:
        # Per-channel zero_mean_unit_variance is wrong in JDLL.
        for step, axes in tensor.reduced:
            per_channel = axes is not None and any(a.id not in axes for a in tensor.folded)
            if step == "zero_mean_unit_variance" and per_channel and tensor.channels > 1:
                yield _found(
                    "jdll-per-channel",
                    "warning",
                    "JDLL computes zero_mean_unit_variance over all channels together.",
                    "use fixed_zero_mean_unit_variance",
                    axis=tensor.id,
                    declared=step,
                )


def _ranges(model: Model) -> Iterator[Finding]:
    # core's gate tries axis permutations: different z and y/x ranges can silently transpose a
    # volume, so declare the same range for all space axes.
    ranges = {a.id: (a.minimum, a.step) for a in model.image.space}
    if len(set(ranges.values())) > 1:
        told = ", ".join(
            f"{name} {least} + n * {step}" if step else f"{name} {least}"
            for name, (least, step) in ranges.items()
        )
        yield _found(
            "different-ranges",
            "warning",
            "bioimageio.core tries the axes in other orders when a size does not fit, so an image "
            "can be read transposed without a word.",
            "declare the same min and step for all space axes",
            axis=model.image.id,
            declared=told,
        )


def _offsets(model: Model) -> Iterator[Finding]:
    for output in model.outputs:
        for axis in output.space:
            where = f"{output.id}.{axis.id}"
            # `offset` together with `halo`: fails everywhere.
            if axis.offset and axis.halo:
                yield _found(
                    "offset-and-halo",
                    "error",
                    "An offset together with a halo fails in core, ilastik and JDLL.",
                    "wrap the network so that its output has the input's size, and declare a halo",
                    axis=where,
                    declared=f"offset {axis.offset}, halo {axis.halo}",
                )
            # Pure valid output (offset = -2c, no halo): core and ilastik place it c pixels off or
            # fail, JDLL applies the old 2 * offset rule and fails.
            elif axis.offset:
                yield _found(
                    "offset",
                    "error",
                    "An output smaller than its input is placed off by half the offset, or fails, "
                    "in core and ilastik, and fails in JDLL.",
                    "wrap the network so that its output has the input's size, and declare a halo",
                    axis=where,
                    declared=f"offset {axis.offset}",
                )
            if axis.scale != 1:
                yield _found(
                    "scale",
                    "error",
                    "ilastik crops a scaled output where the unscaled image lies, and JDLL reads "
                    "scale as its inverse and stops.",
                    "resize inside the network, to an output of the input's size",
                    axis=where,
                    declared=f"scale {axis.scale:g}",
                )


def _minimum(model: Model) -> Iterator[Finding]:
    # JDLL makes tiles as multiples of step, and checks (T - min) % step == 0.
    for axis in model.image.space:
        if axis.step and axis.minimum % axis.step:
            yield _found(
                "min-off-step",
                "warning",
                "JDLL makes tiles that are multiples of step and refuses all of them.",
                "declare a min that is a multiple of step",
                axis=f"{model.image.id}.{axis.id}",
                declared=f"min {axis.minimum}, step {axis.step}",
            )


def _message(model: Model) -> Iterator[Finding]:
    # ilastik's message limit is 100 MiB: a tile travels whole, both ways, as float32.
    for output in model.outputs:
        axes = declared_axes(model, output)
        if axes is None or len(axes) not in ilastik.TARGETS:
            continue
        channels = max(model.image.channels, output.channels)
        placed = ilastik.place(axes, [a.minimum for a in axes], channels=channels)
        if isinstance(placed, Refusal) and "message" in placed.reason:
            yield _found(
                "message-limit",
                "warning",
                f"ilastik: {placed.reason}",
                "declare a fixed smaller size, or give fewer channels out",
                axis=output.id,
            )


RULES: tuple[Rule, ...] = (
    _text_as_mapping,
    _postprocessing,
    _weights,
    _one_tensor,
    _jdll_axes,
    _preprocessing,
    _ranges,
    _offsets,
    _minimum,
    _message,
)
