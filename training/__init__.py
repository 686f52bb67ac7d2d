"""Trains embedding networks: configs, data sets, patches, losses, fit and validation.

The middle floor: it stands on `zoo_models` and never imports `packager`.
"""
