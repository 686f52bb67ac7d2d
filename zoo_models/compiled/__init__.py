"""Clusterers for large arrays, compiled with numba: the same results as the shipped files."""

import numba

# TBB, which comes with OpenVINO and is numba's first choice, waits for ever when a program ends
# whose other threads have used it.
numba.config.THREADING_LAYER_PRIORITY = ["omp", "workqueue", "tbb"]  # type: ignore[attr-defined]
