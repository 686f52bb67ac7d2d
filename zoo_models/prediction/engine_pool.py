"""The engines of all devices asked for, each used by one thread at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
from numpy.typing import NDArray

from zoo_models.prediction.engine import Runner
from zoo_models.prediction.engines import Engine


class EnginePool:
    """Engines of one kind.

    seconds: spent in the engines so far, all together.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.seconds = 0.0
        self._free = list(engines)
        self._count = threading.Semaphore(len(engines))
        self._lock = threading.Lock()

    @contextmanager
    def hold(self) -> Iterator[Runner]:
        """One of the engines, as soon as one is free; it, and its last answer, stay ours inside."""
        with self._count:
            with self._lock:
                engine = self._free.pop()
            try:
                yield partial(self._timed, engine)
            finally:
                with self._lock:
                    self._free.append(engine)

    def _timed(self, engine: Engine, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        start = time.perf_counter()
        answer = engine(tiles)
        with self._lock:
            self.seconds += time.perf_counter() - start
        return answer
