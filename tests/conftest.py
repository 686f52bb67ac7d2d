"""What all tests share: one thread, steady hypothesis runs, and the tests that may be skipped."""

import os

# Set before torch or numpy is first imported: many small tests are slower on several threads,
# and child processes inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parents[1]
DATA_VARIABLE = "SPOCO_ZOO_DATA"

settings.register_profile(
    "steady",
    deadline=None,  # the first example pays for imports and compilation
    derandomize=True,  # the same examples everywhere, so that a red run can be repeated
    max_examples=50,  # of a test that does not say how many
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("steady")


def data_folder() -> Path:
    """Return where the data sets lie: $SPOCO_ZOO_DATA, else ../shared/data of the repository."""
    return Path(os.environ.get(DATA_VARIABLE, REPOSITORY.parent / "shared" / "data"))


def cuda_is_there() -> bool:
    """Say whether torch sees a CUDA device (imported late: most runs never ask)."""
    import torch

    return torch.cuda.is_available()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the data sets, and skip with the reason what cannot run here."""
    no_data = pytest.mark.skip(reason=f"no data sets in {data_folder()}: set {DATA_VARIABLE}")
    no_gpu = pytest.mark.skip(reason="torch sees no CUDA device")
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker("data")
    if not data_folder().is_dir():
        for item in items:
            if item.get_closest_marker("data"):
                item.add_marker(no_data)
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_items and not cuda_is_there():
        for item in gpu_items:
            item.add_marker(no_gpu)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of the data sets; tests that ask for it are skipped where it is absent."""
    return data_folder()
