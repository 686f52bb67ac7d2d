"""Clusterers that are shipped in packages: one file = one class, numpy, scipy, hdbscan only."""
