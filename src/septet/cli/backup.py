"""`septet backup`: the platform's state in one file, taken while it serves."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click

from septet.cli.client import API, CHUNK
from septet.cli.exchange import Answer, BrokenAnswer
from septet.cli.failures import Exit, Failure
from septet.cli.options import Session, with_session
from septet.cli.output import note


@click.command(
    epilog="\b\nExamples:\n  septet backup\n  septet backup --to /var/backups/septet.tar\n"
    "  septet backup --to - | ssh host 'cat > septet.tar'"
)
@click.option("--to", "target", metavar="FILE", help="Where to; - is standard output.  [default: septet-<time>.tar]")
@click.option("--with-key", is_flag=True, help="Put the key in too that opens the secrets.")
@with_session
def command(session: Session, target: str | None, with_key: bool) -> None:
    """Save the platform's state to a file, with secrets in it as they are kept: encrypted.

    The file appears when it is whole, with mode 0600. Without the key, the secrets open only where the key is.
    """
    name = target or time.strftime("septet-%Y%m%d-%H%M%S.tar")
    final = Path(name)
    if name == "-" and sys.stdout.isatty():
        raise Failure("a backup is not for a terminal", hint="use --to FILE", code=Exit.USAGE)
    if name != "-" and final.exists():
        raise Failure(f"{final} is there already", code=Exit.CONFLICT)
    query = {"key": "true" if with_key else ""}
    response = session.client.send("POST", f"{API}/backup", headers={"Accept": "application/octet-stream"}, query=query)
    with response:
        session.client.check(response)
        if name == "-":
            copy(response, sys.stdout.fileno())
            return
        size = save(response, final)
    note(f"{size / 2**20:.1f} MiB saved; `septet restore` puts it into an empty data folder")
    click.echo(str(final))


def save(response: Answer, final: Path) -> int:
    """The answer as a file, which appears when it is whole and on the disk. Returns its bytes."""
    part = final.with_name(f".{final.name}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            size = copy(response, out.fileno())
            os.fsync(out.fileno())
        part.rename(final)
    except OSError as error:
        raise Failure(f"{final} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    return size


def copy(response: Answer, out: int) -> int:
    """Copies the answer to a descriptor; Failure when it breaks off. Returns the bytes."""
    size = 0
    try:
        while chunk := response.read(CHUNK):
            view = memoryview(chunk)
            while view:
                view = view[os.write(out, view) :]
            size += len(chunk)
    except (BrokenAnswer, ConnectionError, TimeoutError) as error:
        raise Failure("the backup broke off; nothing was kept", hint="try again, and see the platform's log") from error
    if response.length:
        raise Failure("the backup broke off; nothing was kept", hint="try again, and see the platform's log")
    return size
