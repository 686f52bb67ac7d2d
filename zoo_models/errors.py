"""Every error a user can cause, in one tree.

Each message is one line: what was found, what was expected, what to do.
The command line prints it and exits with code 2; a library user can catch it.

SpocoZooError
├── GeometryError       a size, halo or step that leaves the period grid
├── InputError          something from outside is not what it must be
│   ├── ImageError      an image or label file
│   ├── ConfigError     a training configuration
│   ├── CheckpointError a checkpoint file
│   └── PackageError    a bioimage.io package
├── OutputExistsError   the output is there already and --overwrite was not given
├── BlocksFailedError   some blocks of an image could not be done; the others are kept
└── ExportError         a package was built but did not pass its own tests
"""


class SpocoZooError(Exception):
    """Base of all errors that this project raises on purpose."""


class GeometryError(SpocoZooError):
    """A size, halo or step that leaves the period grid."""


class InputError(SpocoZooError):
    """Something from outside (a file, a folder) is not what it must be."""


class ImageError(InputError):
    """An image or label file is missing, unreadable or of the wrong kind."""


class ConfigError(InputError):
    """A training configuration has a missing, unknown or impossible value."""


class CheckpointError(InputError):
    """A file is not a spoco-zoo checkpoint, or one this version cannot read."""


class PackageError(InputError):
    """A file is not a bioimage.io package, or one that `predict` cannot run."""


class OutputExistsError(SpocoZooError):
    """The output is there already and overwriting was not asked for."""


class BlocksFailedError(SpocoZooError):
    """Some blocks of an image could not be done; what was done is kept."""


class ExportError(SpocoZooError):
    """A package was built but did not pass its own tests, so it was not kept."""
