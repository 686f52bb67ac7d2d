"""An engine, and the memory that its answer lies in, are one thread's until it lets go."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from zoo_models.prediction.engine_pool import EnginePool


class Overwriting:
    """Doubles its tiles, into the same memory each time."""

    name, precision, device = "overwriting", "float32", "cpu"

    def __init__(self) -> None:
        self.answer = np.zeros((1, 1, 4, 4), np.float32)
        self.calls = 0

    def __call__(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        self.calls += 1
        self.answer[:] = 2 * tiles
        time.sleep(0.002)
        return self.answer


@pytest.mark.parametrize("number", [1, 2])
def test_no_thread_sees_the_answer_of_another(number: int) -> None:
    engines = [Overwriting() for _ in range(number)]
    pool = EnginePool(engines)

    def doubled(value: int) -> float:
        with pool.hold() as engine:
            answer = engine(np.full((1, 1, 4, 4), value, np.float32))
            time.sleep(0.001)
            return float(answer.mean())

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(doubled, range(40))) == [2 * value for value in range(40)]
    assert sum(engine.calls for engine in engines) == 40
    assert all(engine.calls for engine in engines)
    assert pool.seconds >= 40 * 0.002


def test_an_engine_that_fails_is_free_again() -> None:
    pool = EnginePool([Overwriting()])
    with pytest.raises(ValueError, match="broadcast"), pool.hold() as engine:
        engine(np.zeros((1, 1, 5, 5), np.float32))
    with pool.hold() as engine:
        assert engine(np.ones((1, 1, 4, 4), np.float32)).mean() == 2
