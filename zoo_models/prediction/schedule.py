"""Who does the blocks of a step: threads of this process, or the workers of a dask cluster.

A block that fails does not stop the others; all failures of a step are told together. What was
done stays done, so the same command again does the failed ones only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from zoo_models.errors import BlocksFailedError, SpocoZooError
from zoo_models.geometry import Box


@dataclass(frozen=True)
class Done:
    """A block was done, or failed: number `count` of `total` in its step.

    `pixels` were done in `seconds`, with all blocks of the step so far.
    """

    step: str
    block: Box
    count: int
    total: int
    pixels: int
    seconds: float
    error: str | None = None


Report = Callable[[Done], None]


class Schedule(Protocol):
    """Does `work(step, block)` for all blocks, in any order."""

    def __call__(
        self, step: str, work: Callable[[str, Box], None], blocks: Sequence[Box]
    ) -> None: ...


NEEDED = ("zoo_models.prediction.stream", "zoo_models.compiled", "bioimageio.spec", "zarr")
"""What a block needs of this project and of libraries, some of which are loaded when first used."""


class Threads:
    """Threads of this process: while one block is in the network, others are read and written."""

    def __init__(self, number: int, report: Report) -> None:
        self.number = number
        self.report = report

    def __call__(self, step: str, work: Callable[[str, Box], None], blocks: Sequence[Box]) -> None:
        pool = ThreadPoolExecutor(self.number)
        try:
            asked = {pool.submit(work, step, block): block for block in blocks}
            follow(step, blocks, _outcomes(asked), self.report)
        finally:  # after Ctrl-C, too: blocks that were begun are brought to their end
            pool.shutdown(wait=True, cancel_futures=True)


class DaskCluster:
    """Workers of a dask.distributed scheduler; they must see the same files under the same paths.

    `work` must be importable there. A worker that is lost is replaced by the scheduler: its blocks
    are done by others, and as results are files that appear complete or not at all, twice is once.
    """

    def __init__(self, client: Any, report: Report) -> None:
        self.client = client
        self.report = report

    def __call__(self, step: str, work: Callable[[str, Box], None], blocks: Sequence[Box]) -> None:
        from dask.distributed import as_completed as dask_as_completed

        if not blocks:
            return
        asked = {
            self.client.submit(work, step, block, pure=False, retries=1): block for block in blocks
        }
        try:
            outcomes = (
                (asked[future], future.exception() if future.status != "finished" else None)
                for future in dask_as_completed(list(asked))
            )
            follow(step, blocks, outcomes, self.report)
        finally:
            self.client.cancel(list(asked))


@contextmanager
def dask_cluster(address: str, report: Report) -> Iterator[DaskCluster]:
    """Connect to a scheduler: 'tcp://HOST:PORT', or 'local' for processes on this machine.

    Raises:
        InputError: dask.distributed is not installed, or nothing answers there.
    """
    from zoo_models.errors import InputError

    try:
        from dask.distributed import Client, LocalCluster
    except ModuleNotFoundError as error:
        raise InputError(
            "--scheduler needs dask.distributed, which is not installed; pip install "
            "'spoco-zoo[large]' brings it, or leave --scheduler out."
        ) from error
    if address == "local":
        with (
            LocalCluster(threads_per_worker=1, dashboard_address=":0") as local,
            Client(local) as c,
        ):
            _wake(c)
            yield DaskCluster(c, report)
        return
    try:
        client = Client(address, timeout="10s")
    except (OSError, ValueError) as error:
        raise InputError(
            f"--scheduler {address}: no dask scheduler answers there ({error}); start one with "
            "'dask scheduler' and name the address that it prints, or 'local'."
        ) from error
    with client:
        _wake(client)
        yield DaskCluster(client, report)


def _wake(client: Any) -> None:
    """Have the workers import what blocks need: it takes seconds, in which the plan is made."""
    from dask.distributed import fire_and_forget

    for address in client.nthreads():
        for module in NEEDED:
            once = {"workers": [address], "allow_other_workers": True, "pure": False}
            fire_and_forget(client.submit(import_module, module, **once))


def follow(
    step: str,
    blocks: Sequence[Box],
    outcomes: Iterable[tuple[Box, BaseException | None]],
    report: Report,
) -> None:
    """Report every outcome as it comes.

    Raises:
        BlocksFailedError: after the last, when some have failed.
        SpocoZooError: what is wrong with the only block there is.
    """
    start, pixels = time.perf_counter(), 0
    failed: list[tuple[Box, str]] = []
    for count, (block, error) in enumerate(outcomes, start=1):
        if len(blocks) == 1 and isinstance(error, SpocoZooError):
            raise error
        told = None if error is None else _told(error)
        if told is None:
            pixels += block.size
        else:
            failed.append((block, told))
        seconds = time.perf_counter() - start
        report(Done(step, block, count, len(blocks), pixels, seconds, told))
    if failed:
        raise BlocksFailedError(_failures(step, failed, len(blocks)))


def _outcomes(asked: dict[Future[None], Box]) -> Iterator[tuple[Box, BaseException | None]]:
    for future in as_completed(asked):
        yield asked.pop(future), future.exception()


def _told(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if text and isinstance(error, OSError) else f"{type(error).__name__}: {text}"


def _failures(step: str, failed: Sequence[tuple[Box, str]], total: int) -> str:
    first = "; ".join(f"block {b.start} to {b.stop}: {text}" for b, text in failed[:3])
    more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
    return (
        f"{len(failed)} of {total} blocks failed in step '{step}': {first}{more}. What was done is "
        "kept: remove the cause and give the same command again."
    )
