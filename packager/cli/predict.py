"""spoco-zoo predict: package and images in, label images out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from packager.cli.clusterer_options import Method, MinSize, Settings, masks_of, options_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from zoo_models.prediction.images import Image


def predict(
    package: Annotated[Path, typer.Argument(help="Package (.zip, folder or rdf.yaml).")],
    images: Annotated[list[Path], typer.Argument(help="TIFF or PNG files, or folders of them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the label images.")],
    channel: Annotated[
        int | None, typer.Option(min=0, help="Take this channel of a colour image.")
    ] = None,
    tile: Annotated[
        int | None, typer.Option(min=1, help="Largest tile edge in pixels [default: by memory].")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="IMAGES is one data folder (images/, splits.json): take this split."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, mps [default: a GPU if there is one].")
    ] = None,
    method: Method = None,
    settings: Settings = None,
    min_size: MinSize = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER_OR_FILE",
            help="Masks with the images' names; only pixels above 0 become instances.",
        ),
    ] = None,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also write a PNG with the outlines drawn in.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace label images.")] = False,
) -> None:
    """Segment images: NAME.tif becomes OUT/NAME_labels.ome.tif. Bad images do not stop the rest.

    Instances are made by the package's own method; 'spoco-zoo cluster --help' tells of the others.
    """
    from zoo_models.errors import ImageError
    from zoo_models.package import Package
    from zoo_models.prediction.clustering import read_foreground
    from zoo_models.prediction.images import read_image
    from zoo_models.prediction.predict import predict_instances

    paths = _images(images, split)
    masks = masks_of(paths, mask)
    device = _device(device)
    outputs = _outputs(paths, out, overlay=overlay, overwrite=overwrite)
    options = options_of(method, settings, min_size)
    model = Package.load(package, device=device, options=options)
    bad = 0
    for path, mask_path, (labels_path, overlay_path) in zip(paths, masks, outputs, strict=True):
        try:
            image = read_image(path, channel=channel)
            inside = read_foreground(mask_path, image.data.shape[1:]) if mask_path else None
            labels = predict_instances(
                model, image, foreground=inside, tile_limit=tile, device=device
            )
            _write(labels_path, overlay_path, image, labels, overwrite=overwrite)
        except ImageError as error:  # a line for each bad image; the good ones are still written
            typer.echo(f"error: {error}", err=True)
            bad += 1
        else:
            typer.echo(f"{labels_path}  {labels.max()} instances")
    if bad:
        raise typer.Exit(2)


def _write(
    labels_path: Path,
    overlay_path: Path | None,
    image: Image,
    labels: NDArray[np.int32],
    *,
    overwrite: bool,
) -> None:
    from packager.overlay import write_overlay
    from zoo_models.prediction.images import write_labels

    write_labels(
        labels_path,
        labels,
        axes=image.axes.removeprefix("c"),
        voxel_size_um=image.voxel_size_um,
        overwrite=overwrite,
    )
    if overlay_path is not None:
        write_overlay(overlay_path, image.data[0], labels)


def _images(images: list[Path], split: str | None) -> list[Path]:
    from zoo_models.errors import InputError
    from zoo_models.prediction.images import find_images
    from zoo_models.splits import data_file, split_names

    if split is None:
        return find_images(images)
    if len(images) != 1:
        raise InputError(f"--split takes one data folder, found {len(images)} paths; name one.")
    return [data_file(images[0], "images", name) for name in split_names(images[0], split)]


def _outputs(
    paths: list[Path], out: Path, *, overlay: bool, overwrite: bool
) -> list[tuple[Path, Path | None]]:
    """Label and overlay file for each image; refused before any work is done."""
    from packager.cli.outputs import expect_writable
    from zoo_models.errors import InputError, OutputExistsError

    expect_writable(out)
    names = [p.stem.removesuffix(".ome") for p in paths]
    outputs = [
        (out / f"{name}_labels.ome.tif", out / f"{name}_overlay.png" if overlay else None)
        for name in names
    ]
    owner: dict[Path, Path] = {}
    for path, (labels_path, _) in zip(paths, outputs, strict=True):
        if owner.setdefault(labels_path, path) != path:
            raise InputError(
                f"{owner[labels_path]} and {path} would both be written to {labels_path}; expected "
                "different names: predict them into different folders."
            )
    existing = [file for pair in outputs for file in pair if file is not None and file.exists()]
    if existing and not overwrite:
        raise OutputExistsError(
            f"{existing[0]} exists already ({len(existing)} such files): use --overwrite or "
            "another --out."
        )
    return outputs


def _device(name: str | None) -> str:
    import torch

    from zoo_models.errors import InputError

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).cpu()  # "meta" can be made, but not read
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"Device {name!r} cannot be used ({str(error).splitlines()[0]}); 'spoco-zoo doctor' "
            "lists the devices."
        ) from error
    return name
