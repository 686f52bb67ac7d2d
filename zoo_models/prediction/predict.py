"""One image through a package: raw pixels in, instances out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from zoo_models.package import Package
from zoo_models.prediction.blocks import BlockGrid
from zoo_models.prediction.clustering import instances
from zoo_models.prediction.engine import TILE_LIMIT, predict_embeddings
from zoo_models.prediction.images import Image, expect_image


def predict_instances(
    package: Package,
    image: Image,
    *,
    foreground: NDArray[np.bool_] | None = None,
    tile_limit: int | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.int32]:
    """Labels (z)yx int32 of the image's size, 0 is background.

    Tiles lie on the period's grid and mirror the image at its border, so the labels do not depend
    on the tile size; an image smaller than a tile is padded. With `foreground` (z)yx, pixels where
    it is false become 0.

    Raises:
        ImageError: the image has other axes or channels than the network takes, or its embeddings
            are refused by the clusterer.
        InputError: the clusterer needs a teacher, and the package has none.
    """
    expect_image(image, axes=package.geometry.names, channels=package.in_channels)
    grid = BlockGrid.covering(
        image.data.shape[1:],
        package.geometry,
        tile_limit=tile_limit or TILE_LIMIT[package.geometry.ndim],
    )
    embeddings = predict_embeddings(
        package.network,
        package.normalisation.apply(image.data),
        grid,
        embedding_dim=package.embedding_dim,
        device=device,
        progress=progress,
    )
    return instances(
        package.clusterer, embeddings, package.space, foreground=foreground, source=image.path
    )
