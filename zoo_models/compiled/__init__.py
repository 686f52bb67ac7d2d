"""Clusterers for large arrays, compiled with numba: the same results as the shipped files."""
