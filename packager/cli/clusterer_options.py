"""The options that choose a clusterer: the same ones in `cluster` and `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from zoo_models.prediction.clustering import ClustererOptions

Method = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="basin_merging, mean_shift, hdbscan_pixels, mutex_watershed or consistency "
        "[default: the model's; without a model basin_merging].",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A setting of the method, VALUE as in JSON; may be repeated. An unknown KEY lists "
        "the settings there are.",
    ),
]
MinSize = Annotated[
    int | None,
    typer.Option(
        "--min-size", min=0, help="Drop smaller instances, in pixels [default: the model's]."
    ),
]


def options_of(
    method: str | None, settings: list[str] | None, min_size: int | None
) -> ClustererOptions:
    """What the command line asks of the clusterer."""
    from zoo_models.prediction.clustering import ClustererOptions

    return ClustererOptions(method, tuple(settings or ()), min_size)


def masks_of(images: list[Path], mask: Path | None) -> list[Path | None]:
    """The mask of each image: the file itself, or that of the image's name in a folder.

    Raises:
        InputError: one file for several images, or a folder in which not exactly one mask has an
            image's name.
    """
    from zoo_models.errors import InputError
    from zoo_models.prediction.images import find_images

    if mask is None:
        return [None] * len(images)
    if not mask.is_dir():
        if len(images) > 1:
            raise InputError(
                f"--mask {mask}: found one mask for {len(images)} images, expected one each; name "
                "a folder of masks with the images' names."
            )
        return [mask]
    masks: dict[str, list[Path]] = {}
    for path in find_images([mask]):
        masks.setdefault(_name(path), []).append(path)
    for image in images:
        found = masks.get(_name(image), [])
        if len(found) != 1:
            raise InputError(
                f"--mask {mask}: found {len(found)} masks for {image.name}, expected one with its "
                f"name, such as {_name(image)}.tif."
            )
    return [masks[_name(image)][0] for image in images]


def _name(path: Path) -> str:
    """The name of an image without its suffixes."""
    return path.stem.removesuffix(".ome")
