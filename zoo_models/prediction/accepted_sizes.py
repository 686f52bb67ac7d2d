"""Which image sizes a bioimage.io model takes, read from its description alone.

Any model of format 0.4 or 0.5 with one image as its input, whoever made it. Neither its weights nor
its Python are touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from zoo_models.errors import GeometryError, PackageError
from zoo_models.package import description_of, opened

EXPECTED = "a bioimage.io model (.zip, folder or rdf.yaml)"


@dataclass(frozen=True)
class SizeRange:
    """The sizes along one axis: minimum + n * step pixels; step 0: exactly minimum."""

    minimum: int
    step: int

    def smallest(self, size: int) -> int:
        """The smallest size in the range that holds `size` pixels.

        Raises:
            GeometryError: the range has one size, and that is smaller.
        """
        missing = max(0, size - self.minimum)
        if self.step == 0 and missing:
            raise GeometryError(
                f"{size} pixels are more than the {self.minimum} that the model takes, which has "
                f"one size: cut the image into pieces of {self.minimum} or fewer pixels, or "
                "predict it with software that does so (deepImageJ)"
            )
        return self.minimum + (-(-missing // self.step) * self.step if missing else 0)


@dataclass(frozen=True)
class AcceptedSizes:
    """What a model's input must be.

    Attributes:
        model: name and version in the description.
        axes: space axes, 'yx' or 'zyx', whatever their order in the description.
        ranges: the sizes along each of `axes`.
        channels: number of channels; 1 where the input has no channel axis.
    """

    model: str
    axes: Literal["yx", "zyx"]
    ranges: tuple[SizeRange, ...]
    channels: int

    @classmethod
    def of_package(cls, source: Path) -> AcceptedSizes:
        """Read a package zip, an unpacked folder, or its rdf.yaml.

        Raises:
            PackageError: no bioimage.io model, several inputs, axes other than batch, channel and
                (z)yx, a size that is neither a number nor {min, step}.
        """
        with opened(source, expected=EXPECTED) as content:
            description = description_of(source, content, expected=EXPECTED)
        inputs = [t for t in description.inputs if not getattr(t, "optional", False)]
        if len(inputs) != 1:
            raise PackageError(
                f"{source}: takes {len(inputs)} images at once, expected a model of one input: "
                "bring each image to the sizes of its description by other software"
            )
        found = dict(_declared(source, inputs[0]))
        channel = found.pop("channel", SizeRange(1, 0))
        axes: Literal["yx", "zyx"] = "zyx" if "z" in found else "yx"
        if set(found) != set(axes):
            raise PackageError(
                f"{source}: its input has the axes {', '.join(found)}, expected y, x and at most z "
                "beside batch and channel: bring images to its sizes by other software"
            )
        return cls(
            model=" ".join(str(part) for part in (description.name, description.version) if part),
            axes=axes,
            ranges=tuple(found[name] for name in axes),
            channels=channel.minimum,
        )

    def smallest(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The smallest shape (z)yx that the model takes and that holds an image of `shape`.

        Raises:
            GeometryError: the model has one size along an axis, and that is smaller.
        """
        pairs = zip(self.ranges, shape, strict=True)
        return tuple(sizes.smallest(size) for sizes, size in pairs)


def _declared(source: Path, tensor: Any) -> Iterator[tuple[str, SizeRange]]:
    """(axis, sizes) for all axes but the batch."""
    if isinstance(tensor.axes, str):  # format 0.4: one letter per axis, one entry per axis
        least = getattr(tensor.shape, "min", tensor.shape)
        step = getattr(tensor.shape, "step", [0] * len(least))
        for letter, *size in zip(tensor.axes, least, step, strict=True):
            if letter != "b":
                yield {"c": "channel"}.get(letter, letter), SizeRange(*size)
        return
    for axis in tensor.axes:
        name = str(axis.id) if axis.type == "space" else axis.type
        if isinstance(axis.size, int):
            yield name, SizeRange(axis.size, 0)
        elif hasattr(axis.size, "min"):
            yield name, SizeRange(axis.size.min, axis.size.step)
        elif axis.type != "batch":
            raise PackageError(
                f"{source}: the size of its axis {name} follows another axis, expected a number or "
                "{min, step}: bring images to its sizes by other software"
            )
