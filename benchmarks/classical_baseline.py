"""What a classical method reaches: Otsu's threshold, then a watershed on the distance transform.

    python benchmarks/classical_baseline.py DATA_FOLDER SPLIT

prints the scores over the split, computed by the code that scores our models.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_otsu
from skimage.segmentation import watershed

from zoo_models.metrics import aggregate, score
from zoo_models.prediction.images import read_image, read_labels
from zoo_models.splits import data_file, split_names


def otsu_watershed(image: np.ndarray) -> np.ndarray:
    """Image (Y, X) -> labels (Y, X)."""
    smooth = gaussian(image, 1, preserve_range=True)
    mask = ndimage.binary_fill_holes(smooth > threshold_otsu(smooth))
    distance = gaussian(ndimage.distance_transform_edt(mask), 1)
    peaks = peak_local_max(distance, min_distance=5, labels=ndimage.label(mask)[0])
    markers = np.zeros(image.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels: np.ndarray = watershed(-distance, markers, mask=mask)
    return labels


def main(folder: Path, split: str) -> None:
    scores = []
    for name in split_names(folder, split):
        image = read_image(data_file(folder, "images", name)).data[0]
        truth = read_labels(data_file(folder, "labels", name))
        scores.append(score(otsu_watershed(image), truth))
    table = aggregate(scores)
    print(f"{table.images} images: AP@0.5 {table.ap50:.3f}, mAP {table.mean_ap:.3f}, ", end="")
    print(f"SBD {table.sbd:.3f}, |DiC| {table.dic:.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="images/, labels/ and splits.json")
    parser.add_argument("split", choices=("train", "val", "test"))
    arguments = parser.parse_args()
    main(arguments.data, arguments.split)
