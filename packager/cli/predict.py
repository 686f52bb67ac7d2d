"""spoco-zoo predict: package and images of any size in, label images out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from packager.cli.clusterer_options import Method, MinSize, Settings, masks_of, options_of

if TYPE_CHECKING:
    from zoo_models.prediction.predict import Options
    from zoo_models.prediction.source import Place


def predict(
    package: Annotated[Path, typer.Argument(help="Package (.zip, folder or rdf.yaml).")],
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES...",
            help="TIFF or PNG files, folders of them, STORE.zarr, FILE.h5:/DATASET, or the URL of "
            "a Zarr (https://, s3://).",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for what is written.")],
    channel: Annotated[
        int | None, typer.Option(min=0, help="Take this channel of a colour image.")
    ] = None,
    axes: Annotated[
        str | None,
        typer.Option(metavar="tczyx", help="The stored axes, where the file does not name them."),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(metavar="Y:Y,X:X", help="A part of the image, in pixels; 3D: Z:Z,Y:Y,X:X."),
    ] = None,
    tile: Annotated[
        int | None, typer.Option(min=1, help="Largest tile edge in pixels [default: by memory].")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(metavar="4GiB", help="What the process may hold [default: half of all]."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="IMAGES is one data folder (images/, splits.json): take this split."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda, cuda:0,cuda:1, mps [default: all GPUs, else cpu]."),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="torchscript, onnxruntime, openvino, compile, or auto: the fastest of those that "
            "are installed, measured where the image is large.",
        ),
    ] = "auto",
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="dask: tcp://HOST:PORT, or local; shared files."),
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
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            help="ome-tiff or ome-zarr [default: ome-tiff up to 16 million pixels].",
        ),
    ] = None,
    table: Annotated[
        str, typer.Option(metavar="FORMAT", help="Table of the objects: csv, parquet or none.")
    ] = "csv",
    embeddings: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="Keep the embeddings, too: float32 or float16."),
    ] = None,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave images alone whose labels are there.")
    ] = False,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also write a PNG with the outlines drawn in.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace outputs, and runs begun otherwise.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan of every image; write nothing.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Tell what happens as JSON, one event per line.")
    ] = False,
) -> None:
    """Segment images: NAME.tif becomes OUT/NAME_labels.ome.tif, large ones NAME_labels.ome.zarr.

    The image is never in memory as a whole. Stop it at any moment and give the same command again:
    it goes on where it was. Bad images do not stop the rest.

    Instances are made by the package's own method; 'spoco-zoo cluster --help' tells of the others.
    """
    from packager.cli.outputs import expect_writable
    from packager.cli.progress import Follower
    from packager.cli.segmenter import Segmenter
    from zoo_models.errors import BlocksFailedError, ImageError

    places = _places(images, split, channel, axes, region)
    masks = masks_of([Path(place.path) for place in places], mask)
    expect_writable(out)
    clusterer = options_of(method, settings, min_size)
    options = _options(
        clusterer=clusterer,
        engine=engine,
        precision=precision,
        device=_devices(device),
        threads=None if scheduler is None else 1,  # a cluster has a worker for each core
        tile=tile,
        memory=memory,
        labels=labels,
        table=table,
        embeddings=embeddings,
    )
    follower = Follower(as_json=json)
    segmenter = Segmenter(package, options, out, follower)
    if not (overwrite or skip_existing or dry_run):
        segmenter.expect_new(places, overlay=overlay)
    bad = 0
    with segmenter.on(scheduler):
        for place, mask_path in zip(places, masks, strict=True):
            try:
                if dry_run:
                    segmenter.plan(place, mask_path)
                elif not (skip_existing and segmenter.is_done(place)):
                    segmenter.segment(place, mask_path, overlay=overlay, overwrite=overwrite)
            except (ImageError, BlocksFailedError) as error:
                follower.failed(str(error))
                bad += 1
            except KeyboardInterrupt:
                follower.failed("stopped; the same command goes on where it was.")
                raise typer.Exit(130) from None
    if bad:
        raise typer.Exit(2)


def _places(
    images: list[str],
    split: str | None,
    channel: int | None,
    axes: str | None,
    region: str | None,
) -> list[Place]:
    """Where the images are: files of folders one by one, everything else as it was given."""
    from zoo_models.errors import InputError
    from zoo_models.prediction.images import find_images
    from zoo_models.prediction.source import Place
    from zoo_models.prediction.stored_arrays import array_place
    from zoo_models.splits import data_file, split_names

    if split is not None:
        if len(images) != 1:
            raise InputError(f"--split takes one data folder, found {len(images)} paths; name one.")
        folder = Path(images[0])
        found = [str(data_file(folder, "images", name)) for name in split_names(folder, split)]
    else:
        found = []
        for text in images:
            stored = "://" in text or array_place(text) is not None
            found += [text] if stored else map(str, find_images([text]))
    box = None if region is None else _region(region)
    return [Place(path, axes, channel, box) for path in dict.fromkeys(found)]


def _region(text: str) -> tuple[tuple[int, int], ...]:
    """'0:512,100:700' as ((0, 512), (100, 700))."""
    from zoo_models.errors import InputError

    try:
        pairs = [tuple(map(int, part.split(":"))) for part in text.split(",")]
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError
    except ValueError as error:
        raise InputError(
            f"--region {text}: expected the first and the end pixel of y and x, or of z, y and x, "
            "such as 0:2048,1000:3000."
        ) from error
    return tuple((pair[0], pair[1]) for pair in pairs)


def _options(**asked: Any) -> Options:
    """Refused here, before a package is opened, where a word is none of those there are."""
    from zoo_models.errors import InputError
    from zoo_models.prediction.plan import parse_bytes
    from zoo_models.prediction.predict import Options

    words = {
        "labels": ("ome-tiff", "ome-zarr", None),
        "table": ("csv", "parquet", "none"),
        "embeddings": ("float32", "float16", None),
        "precision": ("float32", "bfloat16"),
    }
    for name, known in words.items():
        if asked[name] not in known:
            good = ", ".join(word for word in known if word is not None)
            raise InputError(f"--{name} {asked[name]}: expected one of {good}.")
    asked["table"] = None if asked["table"] == "none" else asked["table"]
    asked["memory"] = None if asked["memory"] is None else parse_bytes(asked["memory"])
    return Options(**asked)


def _devices(names: str | None) -> str:
    """Devices separated by commas; every GPU by default, and the processor where there is none."""
    import torch

    from zoo_models.errors import InputError

    if names is None:
        gpus = [f"cuda:{n}" for n in range(torch.cuda.device_count())]
        return ",".join(gpus) or "cpu"
    for name in names.split(","):
        try:
            torch.zeros(1, device=name).cpu()  # "meta" can be made, but not read
        except (RuntimeError, AssertionError) as error:
            raise InputError(
                f"Device {name!r} cannot be used ({str(error).splitlines()[0]}); 'spoco-zoo "
                "doctor' lists the devices."
            ) from error
    return names
