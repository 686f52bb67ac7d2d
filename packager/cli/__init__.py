"""The command line: parse, call one function, print, exit code.

Exit codes: 0 good, 1 a fault was found, 2 could not run. Everything heavy is imported inside the
commands, so that `spoco-zoo --help` answers at once.
"""

from __future__ import annotations

import atexit
import gc
import sys

import typer

from packager.cli import (
    audit,
    cluster,
    crop,
    doctor,
    evaluate,
    experiments,
    export,
    import_,
    models,
    pad,
    predict,
    train,
    tune,
)
from zoo_models.errors import SpocoZooError

app = typer.Typer(
    name="spoco-zoo",
    help="Train pixel-embedding networks, export them as bioimage.io packages, predict instances.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("train")(train.train)
app.command("tune")(tune.tune)
app.command("import")(import_.import_)
app.command("export")(export.export)
app.command("predict")(predict.predict)
app.command("cluster")(cluster.cluster)
app.command("pad")(pad.pad)
app.command("crop")(crop.crop)
app.command("audit")(audit.audit)
app.command("evaluate")(evaluate.evaluate)
app.command("models")(models.models)
app.command("doctor")(doctor.doctor)
app.add_typer(experiments.app, name="experiments", help="Declared runs: train, score, table.")


def main() -> None:
    """Run a command; an error of ours or of the file system is one line on stderr, exit code 2."""
    atexit.register(gc.freeze)  # looking for cycles among all that was imported takes 0.6 s
    try:
        app()
    except SpocoZooError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # no permission, a full disk: the system's own words
        where = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or error
        print(f"error: {where}{reason}; make it accessible or name another path", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(2)
