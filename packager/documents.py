"""What a human sees of a package: its README and its cover image."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from packager.card import Card
from packager.certificate import EXACT, Certificate, rows
from packager.consumers.jdll import MOST_OUTPUT_BYTES, MOST_PIXELS
from packager.describe import Subject
from packager.kinds import Product, expect_title_fits
from zoo_models.checkpoint import Checkpoint
from zoo_models.colours import (
    channel_colours,
    embedding_colours,
    label_colours,
    principal_directions,
)

Grey = NDArray[np.float32]
Rgb = NDArray[np.uint8]

PANEL = (384, 256)
"""Height and width of one of the cover's three panels: together 2:1, as the zoo shows covers."""

LONGEST_LIST = 32
"""Settings with more numbers are not written out: the package's own description holds them."""


def readme(subject: Subject) -> str:
    """The package's README.md; its validation section is what the zoo's validator looks for."""
    checkpoint, card = subject.checkpoint, subject.card
    sections = [
        f"# {expect_title_fits(card.title, subject.product.kind)}",
        card.description,
        f"# What it gives\n\n{_what_it_gives(subject)}",
        f"# How it tiles\n\n{_geometry(subject)}",
        _certificate(subject.certificate),
        _consumers(subject),
        _validation(card),
        _training(checkpoint, card),
        "# Licence and citation",
        f"Weights and description: {card.licence}. Please cite:",
        _bullets(f"{c.text} https://doi.org/{c.doi}" for c in card.citations),
    ]
    return "\n\n".join(sections) + "\n"


def _setting(name: str, value: object) -> str:
    """`name = value`; of a long list its length only."""
    long = isinstance(value, Sequence) and len(value) > LONGEST_LIST
    return f"{name}: {len(value)} numbers" if long else f"{name} = {value}"  # type: ignore[arg-type]


def _what_it_gives(subject: Subject) -> str:
    checkpoint, kind = subject.checkpoint, subject.product.kind
    clusterer = subject.product.clusterer
    settings = ", ".join(_setting(k, v) for k, v in clusterer.settings.items()) or "its defaults"
    embeddings = (
        f"a vector of {checkpoint.embedding_dim} numbers, its embedding. Pixels of one instance "
        f"lie within about delta_v = {checkpoint.delta_v:g} of their mean, means of different "
        f"instances at least 2 delta_d = {2 * checkpoint.delta_d:g} apart. The channels are not "
        "probabilities."
    )
    if subject.product.with_teacher:
        embeddings += (
            f" Then {checkpoint.embedding_dim} more, the embedding by the teacher, which the "
            "network was compared with in training: instances are kept where both agree."
        )
    told = {
        "embeddings": f"For each pixel {embeddings}\n\nInstances come from clustering the "
        f"stitched embeddings once, with the attached `{clusterer.name}.py` ({settings}). "
        "Clustering tile by tile would cut instances apart.",
        "boundaries": "Two channels, both from 0 to 1: foreground, and boundary between instances "
        "(high where the embeddings on either side of a pixel differ). They are computed from the "
        "network's embeddings inside the graph, and are meant for ilastik's Multicut workflow or "
        "a watershed; they are no probabilities.",
        "instances": "One channel of whole numbers: 0 for the background, 1, 2, ... for the "
        f"instances. Network and clustering ({clusterer.name}: {settings}) are one graph, which "
        "pads the image itself. Stored as float32, which is exact for up to 16 million instances.",
        "clusterer": "The second step after a package of kind `embeddings`: stitched embeddings "
        f"in, instances out (0 for the background), by {clusterer.name} ({settings}). Each pixel "
        f"brings {embeddings}",
    }
    return told[kind]


def _geometry(subject: Subject) -> str:
    product, geometry = subject.product, subject.checkpoint.geometry
    if product.one_pass:
        return (
            "Not at all: an instance that two tiles share would get two numbers. Give it the whole "
            "image, of any size; bioimageio.core (not blockwise) and deepImageJ do."
        )
    rows = [
        (name, d.minimum, d.step or "fixed", d.halo, a.period, a.shrink)
        for name, d, a in zip(geometry.names, product.axes, geometry.axes, strict=True)
    ]
    padded = product.kind == "embeddings" and subject.checkpoint.architecture == "unet_same"
    outside = "were computed from the padding around the tile" if padded else "hold zeros"
    needs = "reach" if subject.checkpoint.architecture == "unet_same" else "shrink"
    columns = ("axis", "min", "step", "halo", "period", f"{needs} of the network")
    return (
        f"The output has the input's size. The outermost `halo` pixels of it {outside} and must be "
        "cropped; a consumer that reads this package's description does so. Tiles are `min + n * "
        "step` wide. Tile-by-tile prediction equals prediction in one pass when image sizes are "
        "multiples of the period (of twice the period in ilastik). Pad other images first: "
        "`spoco-zoo pad IMAGE --for PACKAGE`, and `spoco-zoo crop` the result.\n\n"
        + _table(columns, rows)
    )


def _certificate(certificate: Certificate) -> str:
    columns = ("consumer", "outcome", "largest difference on the grid", "off the grid")
    sizes = {"x".join(map(str, t.size)) for v in certificate.verdicts for t in v.trials}
    versions = ", ".join(f"{name} {number}" for name, number in certificate.versions.items())
    return (
        "## Tiling certificate\n\nMeasured at export: the weight files of this package, run "
        "tile by tile as each consumer places tiles, against one pass over the whole image. "
        "Differences are in standard deviations of the output; exact means at most "
        f"{EXACT:g}.\n\n{_table(columns, rows(certificate))}\n\n"
        f"Image sizes tried: {', '.join(sorted(sizes))}. Versions: {versions}; tile placement of "
        "ilastik 1.4.2 and JDLL 0.6."
    )


def _consumers(subject: Subject) -> str:
    product, period = subject.product, max(subject.product.grid)
    gives = product.gives.id
    tiled = {
        "core": f"multiples of {period}; the command refuses all but min + n * step",
        "ilastik": f"multiples of {2 * period}",
        "fiji": f"multiples of {period}, up to {_jdll_limit(product)}",
    }
    whole = {
        "core": "any, in one pass",
        "ilastik": "do not use",
        "fiji": f"up to {_jdll_limit(product)}",
    }
    sizes = whole if product.one_pass else tiled
    core = "its Python API; the command `bioimageio predict`"
    table = [
        ("bioimageio.core", core, gives, sizes["core"]),
        ("ilastik", "Neural Network workflow", gives, sizes["ilastik"]),
        ("deepImageJ, Fiji, Icy", "the plugin's own dialog (TorchScript)", gives, sizes["fiji"]),
    ]
    if product.kind == "embeddings":
        own = "`spoco-zoo predict PACKAGE IMAGE -o FOLDER`"
        table.insert(0, ("spoco-zoo", own, "instances", "any size"))
    return "# How to run it\n\n" + _table(("software", "how", "gives", "image sizes"), table)


def _jdll_limit(product: Product) -> str:
    """The largest image that JDLL takes as one tile; with a fixed size it makes tiles itself."""
    if not product.axes[0].step:
        return "any size"
    values = MOST_OUTPUT_BYTES // (4 * len(product.gives.channels))
    return f"{min(values, MOST_PIXELS // len(product.takes.channels)) // 10**6} million pixels"


def _validation(card: Card) -> str:
    tables = [
        f"## {m.title}\n\n{_table(m.columns, m.rows)}" + (f"\n\n{m.note}" if m.note else "")
        for m in card.measurements
    ]
    limits = [f"## Known limits\n\n{_bullets(card.limits)}"] if card.limits else []
    how = (
        "To validate on your own images: predict them, then compare with labels made by hand, "
        "`spoco-zoo evaluate PREDICTED TRUTH`."
    )
    return "\n\n".join(["# Validation", *tables, how, *limits])


def _training(checkpoint: Checkpoint, card: Card) -> str:
    data, constants = card.training_data, checkpoint.normalisation
    voxel = checkpoint.voxel_size_um
    size = " x ".join(f"{v:g}" for v in voxel) + " micrometres" if voxel else "not known"
    facts = [
        f"Data: {data.name}. {data.text} Licence: {data.licence}. Source: {data.source}",
        f"Network input: image * {constants.gain:g} + {constants.offset:g}, the same everywhere",
        f"Pixel size of the training images ({checkpoint.axes}): {size}",
        f"Sample and cover image: {card.sample.source}",
    ]
    return "# Training\n\n" + _bullets(facts)


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def cover(image: Grey, embeddings: Grey, labels: NDArray[np.int32]) -> bytes:
    """A PNG, 2:1: the image, its embeddings, its instances.

    Args:
        image: c(z)yx raw values; of a stack the middle plane is shown, of channels the first.
        embeddings: D(z)yx; shown are their three main directions as red, green, blue.
        labels: (z)yx instances, 0 background.
    """
    if image.ndim == 4:
        middle = image.shape[1] // 2
        image, embeddings, labels = image[:, middle], embeddings[:, middle], labels[middle]
    window = _window(labels)
    panels = [
        channel_colours(image[:1]),
        embedding_colours(embeddings, principal_directions(embeddings)),
        label_colours(labels),
    ]
    smooth = Image.Resampling.BICUBIC
    modes = (smooth, smooth, Image.Resampling.NEAREST)
    joined = np.concatenate(
        [_panel(panel[window], mode) for panel, mode in zip(panels, modes, strict=True)], axis=1
    )
    file = io.BytesIO()
    Image.fromarray(joined).save(file, "PNG", optimize=True)
    return file.getvalue()


def _window(labels: NDArray[np.int32]) -> tuple[slice, slice]:
    """The middle part with a panel's proportions, as large as it fits in, for (y, x)."""
    height, width = labels.shape
    scale = min(height / PANEL[0], width / PANEL[1])
    size = [max(1, round(n * scale)) for n in PANEL]
    start = [(n - s) // 2 for n, s in zip((height, width), size, strict=True)]
    y, x = (slice(a, a + s) for a, s in zip(start, size, strict=True))
    return y, x


def _panel(picture: Rgb, mode: Image.Resampling) -> Rgb:
    height, width = PANEL
    resized = Image.fromarray(np.ascontiguousarray(picture)).resize((width, height), mode)
    return np.asarray(resized)
