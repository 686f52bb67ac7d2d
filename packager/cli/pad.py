"""spoco-zoo pad: images in, images of a size that a package takes out, for other software."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def pad(
    images: Annotated[list[Path], typer.Argument(help="TIFF or PNG files, or folders of them.")],
    package: Annotated[
        Path, typer.Option("--for", help="bioimage.io model (.zip, folder or rdf.yaml).")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the padded images.")],
    channel: Annotated[
        int | None, typer.Option(min=0, help="Take this channel of a colour image.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace padded images.")] = False,
) -> None:
    """Pad images for prediction in ilastik, Fiji or bioimageio; 'crop' cuts the results back.

    NAME.tif becomes OUT/NAME_padded.tif, mirrored at the end of each axis up to the smallest size
    that the package takes, with the record NAME_padded.json beside it. 'spoco-zoo predict' itself
    takes any size. Bad images do not stop the rest.
    """
    from zoo_models.errors import ImageError
    from zoo_models.prediction.accepted_sizes import AcceptedSizes
    from zoo_models.prediction.images import find_images, read_image
    from zoo_models.prediction.padded_files import pad_image
    from zoo_models.prediction.padding import shape_text

    paths = find_images(images)
    outputs = _outputs(paths, out, overwrite=overwrite)
    accepted = AcceptedSizes.of_package(package)
    bad = 0
    for path, padded in zip(paths, outputs, strict=True):
        try:
            image = read_image(path, channel=channel)
            record = pad_image(image, accepted, padded, overwrite=overwrite)
        except ImageError as error:  # a line for each bad image; the good ones are still written
            typer.echo(f"error: {error}", err=True)
            bad += 1
        else:
            before, after = shape_text(record.shape), shape_text(record.padded_shape)
            fits = before == after
            typer.echo(f"{padded}  {before} {'fits already' if fits else f'padded to {after}'}")
    if bad:
        raise typer.Exit(2)


def _outputs(paths: list[Path], out: Path, *, overwrite: bool) -> list[Path]:
    """The padded file of each image; refused before any work is done."""
    from packager.cli.outputs import expect_writable
    from zoo_models.errors import InputError, OutputExistsError
    from zoo_models.prediction.padded_files import record_name

    expect_writable(out)
    outputs = [out / f"{path.stem.removesuffix('.ome')}_padded.tif" for path in paths]
    owner: dict[Path, Path] = {}
    for path, padded in zip(paths, outputs, strict=True):
        if owner.setdefault(padded, path) != path:
            raise InputError(
                f"{owner[padded]} and {path} would both be written to {padded}; expected "
                "different names: pad them into different folders."
            )
    files = [file for padded in outputs for file in (padded, record_name(padded))]
    existing = [file for file in files if file.exists()]
    if existing and not overwrite:
        raise OutputExistsError(
            f"{existing[0]} exists already ({len(existing)} such files): use --overwrite or "
            "another --out."
        )
    return outputs
