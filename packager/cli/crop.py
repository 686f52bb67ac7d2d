"""spoco-zoo crop: what other software predicted from a padded image, cut back to the image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def crop(
    predicted: Annotated[
        Path, typer.Argument(help="Labels or embeddings of the padded image, TIFF or .npy.")
    ],
    record: Annotated[
        Path, typer.Option("--pad", help="NAME_padded.json, beside the padded image.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write, .tif or .npy.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Cut a prediction back to the size that its image had before 'spoco-zoo pad'.

    Values and their type are kept; further axes (channels, a batch of 1) may stand anywhere.
    """
    from packager.cli.outputs import expect_writable
    from zoo_models.prediction.padded_files import crop_predicted
    from zoo_models.prediction.padding import PadRecord, shape_text

    expect_writable(out.parent)
    shape, dtype = crop_predicted(predicted, PadRecord.load(record), out, overwrite=overwrite)
    typer.echo(f"{out}  {shape_text(shape)} {dtype}")
