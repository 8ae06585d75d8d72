"""`septet restore`: a backup into an empty data folder, while no platform runs there."""

from __future__ import annotations

from pathlib import Path

import click

from septet.cli.failures import Exit, Failure
from septet.cli.output import note
from septet.model.errors import SeptetError
from septet.settings import default_data_dir


@click.command(epilog="\b\nExample:\n  septet restore septet-20260101-120000.tar --data-dir /var/lib/septet")
@click.argument("archive", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to; must be empty or not there.  [env: SEPTET_DATA_DIR]",
    envvar="SEPTET_DATA_DIR",
)
def command(archive: Path, data_dir: Path | None) -> None:
    """Put a backup into an empty data folder. Works without a running platform."""
    folder = data_dir or default_data_dir()
    if folder.exists() and any(folder.iterdir()):
        raise Failure(
            f"{folder} is not empty", hint="name another with --data-dir; nothing is overwritten", code=Exit.CONFLICT
        )
    import septet.app

    try:
        septet.app.restore(archive, folder)
    except SeptetError as error:
        raise Failure(error.message, hint=error.hint) from error
    note(f"restored; `septet up --data-dir {folder}` serves it")
    click.echo(str(folder))
