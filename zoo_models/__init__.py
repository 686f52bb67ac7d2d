"""What a zoo model is, how it tiles, how it runs and how it is scored.

The ground floor: `training` and `packager` stand on it, it imports neither of them.

    packager      describes, exports, tests and runs packages; the command line
    training      configs, data, losses, fit, validate
    zoo_models    geometry, networks, checkpoints, clusterers, prediction, metrics

Rooms: `geometry` and `receptive_field` (tiles on the period grid), `architectures` and
`postprocessing` (files that are shipped in packages as they are), `checkpoint`, `catalog`,
`prediction`, `metrics`, `errors`. Nothing is imported here, so that each room opens alone.
"""
