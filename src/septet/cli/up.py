"""`septet up`: flags into settings, then the platform until a signal ends it."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from septet.cli.contexts import Context, load_contexts, save_contexts
from septet.cli.failures import Failure
from septet.cli.output import clean, note, style
from septet.cli.paths import default_data_dir
from septet.model.errors import SeptetError


@click.command(
    epilog="\b\nExamples:\n  septet up\n  septet up --listen 127.0.0.1:0 --data-dir ./data --ready-json\n"
    "  septet up --listen 0.0.0.0:8443 --tls-cert cert.pem --tls-key key.pem"
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    envvar="SEPTET_LISTEN",
    show_envvar=True,
    help="Where to listen; port 0 picks a free one.  [default: 127.0.0.1:8080]",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="SEPTET_DATA_DIR",
    show_envvar=True,
    help="Where state is kept.",
)
@click.option("--ready-json", is_flag=True, help="Print one JSON line on standard output when it serves.")
@click.option(
    "--sandbox",
    metavar="NAME",
    envvar="SEPTET_SANDBOX",
    show_envvar=True,
    help="process, or none for no isolation at all.  [default: process]",
)
@click.option(
    "--tls-cert",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="SEPTET_TLS_CERT",
    show_envvar=True,
    help="Serve TLS with this certificate chain (PEM).",
)
@click.option(
    "--tls-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="SEPTET_TLS_KEY",
    show_envvar=True,
    help="The certificate's key (PEM).",
)
@click.option(
    "--memory-budget",
    type=click.IntRange(min=64),
    metavar="MIB",
    envvar="SEPTET_MEMORY_BUDGET",
    show_envvar=True,
    help="Memory of all instances together.  [default: from the host's memory]",
)
@click.option(
    "--public-metrics", is_flag=True, envvar="SEPTET_PUBLIC_METRICS", show_envvar=True, help="/metrics needs no token."
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    envvar="SEPTET_LOG_LEVEL",
    show_envvar=True,
    help="How much it tells on standard error.",
)
@click.option("--no-context", is_flag=True, help="Do not write the context `local` for the client commands.")
def command(ready_json: bool, no_context: bool, **flags: Any) -> int:
    """Start the platform and keep serving until Ctrl-C or SIGTERM, which lets calls end first."""
    if bool(flags["tls_cert"]) != bool(flags["tls_key"]):
        raise click.UsageError("--tls-cert and --tls-key go together")
    given = settings_of(flags)
    from septet.app import run
    from septet.settings import Settings

    def on_ready(ready: Mapping[str, Any]) -> None:
        announce(ready, as_json=ready_json, keep=not no_context)

    try:
        return int(run(Settings(**given), on_ready=on_ready))
    except SeptetError as error:
        raise Failure(error.message, hint=error.hint) from error


def settings_of(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that were given; what was not is left to the settings' own defaults."""
    given = {key: value for key, value in flags.items() if value not in (None, False)}
    given.setdefault("data_dir", default_data_dir())
    return given


def announce(ready: Mapping[str, Any], *, as_json: bool, keep: bool) -> None:
    """Tells whoever waits: a program by one JSON line, a person by a few, systemd by its socket."""
    if keep:
        remember(ready)
    if as_json:
        click.echo(json.dumps(dict(ready), separators=(",", ":")))
        sys.stdout.flush()
    else:
        note(style("septet serves at ", "green", sys.stderr) + clean(ready["url"]))
        note(
            f"data folder: {clean(ready['data_dir'])}; the admin token is in it, and in the context `local`"
            if keep
            else f"data folder: {clean(ready['data_dir'])}"
        )
        note("next: `septet new --runtime python hello`, `septet deploy`, `septet invoke hello`; Ctrl-C ends it")
    tell_systemd("READY=1")


def remember(ready: Mapping[str, Any]) -> None:
    """Writes the context `local`, which becomes the current one when there was none."""
    try:
        known = load_contexts()
        known.contexts["local"] = Context(url=ready["url"], token=ready["token"])
        known.current = known.current or "local"
        save_contexts(known)
    except (Failure, OSError) as error:
        note(f"the context for the client commands could not be written: {error}")


def tell_systemd(message: str) -> None:
    """sd_notify(3): a datagram to the socket that systemd named, if it did."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)
