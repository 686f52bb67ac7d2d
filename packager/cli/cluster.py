"""spoco-zoo cluster: stored embeddings in, a label image out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from packager.cli.clusterer_options import Method, MinSize, Settings, options_of

if TYPE_CHECKING:
    from zoo_models.prediction.clustering import ClustererOptions, EmbeddingSpace


def cluster(
    embeddings: Annotated[
        str,
        typer.Argument(
            metavar="EMBEDDINGS",
            help="FILE.npy, FILE.tif, FILE.h5:/DATASET or STORE.zarr/ARRAY, of one image.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="LABELS", help="Label image, LABELS.ome.tif.")
    ],
    package: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="What made the embeddings: a package, a checkpoint (.safetensors) or the name of "
            "a catalog model. Gives margins, method and settings.",
        ),
    ] = None,
    method: Method = None,
    settings: Settings = None,
    min_size: MinSize = None,
    mask: Annotated[
        Path | None,
        typer.Option(help="Label or mask image; only pixels above 0 become instances."),
    ] = None,
    delta_v: Annotated[
        float | None,
        typer.Option(help="Margin of the pull term, without --package [default: 0.5]."),
    ] = None,
    delta_d: Annotated[
        float | None,
        typer.Option(help="Margin of the push term, without --package [default: 2.0]."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace LABELS.")] = False,
) -> None:
    """Make instances of stored embeddings, such as 'bioimageio predict' writes.

    EMBEDDINGS are floats with the axes (D, [Z,] Y, X) or (1, D, [Z,] Y, X), D the embedding
    dimensions; files that name their axes may have them in any order. LABELS is an OME-TIFF in
    which 0 is background and the instances are 1, 2, 3 and so on.

    \b
    METHOD           TAKE IT
    basin_merging    first: quick on images of any size
    mean_shift       to compare with SPOCO's results: one radius, delta_v, for
                     all objects; slow
    hdbscan_pixels   where delta_v does not fit the objects; slow, small images
    mutex_watershed  for dense tissue, objects that touch on all sides
    consistency      for models trained from few labels; drops what the model's
                     teacher does not agree to (spoco-zoo export --teacher)

    The background is what the model knows as such, or is near --set background=[...], or lies
    outside --mask; without any of these, the largest cluster is the background.
    """
    from time import perf_counter

    from zoo_models.postprocessing import build_clusterer
    from zoo_models.prediction.clustering import instances, read_foreground
    from zoo_models.prediction.labels import write_labels
    from zoo_models.prediction.stored_embeddings import read_embeddings

    _expect_new(out, overwrite=overwrite)
    space = _space(package, delta_v, delta_d, options_of(method, settings, min_size))
    clusterer = build_clusterer(space.clusterer)
    stored = read_embeddings(embeddings, space)
    foreground = None if mask is None else read_foreground(mask, stored.data.shape[1:])
    start = perf_counter()
    labels = instances(clusterer, stored.data, space, foreground=foreground, source=embeddings)
    seconds = perf_counter() - start
    write_labels(
        out, labels, axes=stored.axes, voxel_size_um=stored.voxel_size_um, overwrite=overwrite
    )
    typer.echo(f"{out}  {labels.max()} instances  {seconds:.3g} s with {space.clusterer.name}")


def _space(
    package: str | None, delta_v: float | None, delta_d: float | None, options: ClustererOptions
) -> EmbeddingSpace:
    """What is known of the embeddings, from the model or from the command line, and the method."""
    from zoo_models.catalog import find_checkpoint
    from zoo_models.checkpoint import Checkpoint
    from zoo_models.errors import InputError
    from zoo_models.package import read_space
    from zoo_models.prediction.clustering import EmbeddingSpace

    if package is None:
        unknown = EmbeddingSpace()
        v = unknown.delta_v if delta_v is None else delta_v
        d = unknown.delta_d if delta_d is None else delta_d
        return options.applied(EmbeddingSpace(v, d))
    if delta_v is not None or delta_d is not None:
        raise InputError(
            f"Found --delta-v or --delta-d beside --package {package}, which has its own; leave "
            "them out, or try other values with --set delta_v=VALUE."
        )
    path = Path(package)
    if path.suffix != ".safetensors" and (path.suffix or path.exists()):
        return read_space(path, options)
    checkpoint = Checkpoint.load(find_checkpoint(package))
    return options.applied(EmbeddingSpace.of_checkpoint(checkpoint))


def _expect_new(out: Path, *, overwrite: bool) -> None:
    """Refuse a name that could not be written in the end, before any work is done."""
    from packager.cli.outputs import expect_new
    from zoo_models.errors import ImageError
    from zoo_models.prediction.decoding import TIFF_SUFFIXES

    if out.suffix.lower() not in TIFF_SUFFIXES:
        raise ImageError(
            f"{out}: found the suffix {out.suffix!r}, expected a name ending in .tif; labels are "
            "written as OME-TIFF"
        )
    expect_new(out, overwrite=overwrite)
