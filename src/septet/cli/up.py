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
from septet.cli.failures import Exit, Failure
from septet.cli.options import parse_duration
from septet.cli.output import clean, note, style
from septet.model.errors import InvalidInput, SeptetError
from septet.settings import load

PEM = click.Path(exists=True, dir_okay=False)


@click.command(
    epilog="\b\nExamples:\n  septet up\n  septet up --listen 127.0.0.1:0 --data-dir ./data --ready-json\n"
    "  septet up --listen 0.0.0.0:8443 --tls-cert cert.pem --tls-key key.pem"
)
@click.option(
    "--listen", metavar="HOST:PORT", help="Where to listen; port 0 picks a free one.  [default: 127.0.0.1:8080]"
)
@click.option("--data-dir", type=click.Path(file_okay=False, path_type=Path), help="Where state is kept.")
@click.option("--ready-json", is_flag=True, default=None, help="Print one JSON line on standard output when it serves.")
@click.option("--workers", type=click.IntRange(1, 64), metavar="N", help="Processes that serve calls.  [default: 1]")
@click.option("--sandbox", metavar="NAME", help="process, or none for no isolation at all.  [default: process]")
@click.option("--tls-cert", multiple=True, type=PEM, help="Serve TLS with this certificate chain; one per host name.")
@click.option("--tls-key", multiple=True, type=PEM, help="The certificate's key; as many, in the same order.")
@click.option(
    "--memory-budget", type=click.IntRange(min=1), metavar="MIB", help="Memory of all instances and builds together."
)
@click.option("--warm-pool", type=click.IntRange(min=0), metavar="N", help="Prepared sandboxes; by default as needed.")
@click.option(
    "--keep-alive", metavar="TIME|auto", help="How long idle functions keep an instance, frozen.  [default: 0]"
)
@click.option("--no-zygote", is_flag=True, default=None, help="Exec every function's interpreter; no warm pool.")
@click.option(
    "--shared-namespace",
    multiple=True,
    metavar="NAMESPACE",
    help="Let its functions ask for isolation shared-namespace; * for all.",
)
@click.option(
    "--listener",
    multiple=True,
    metavar="NAME,address=HOST:PORT,...",
    help="A further listener: also apis=A+B, namespace=NS, anonymous=NS+NS (no token asked), tls=yes.",
)
@click.option("--public-metrics", is_flag=True, default=None, help="/metrics needs no token.")
@click.option("--drain-timeout", metavar="TIME", help="How long running calls get at the end.  [default: 30s]")
@click.option("--log-bytes", type=click.IntRange(min=65536), metavar="BYTES", help="Log kept of each function.")
@click.option("--trusted-proxy", "trusted_proxies", multiple=True, metavar="ADDRESS", help="Believe its X-Forwarded-*.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="How much it tells.")
@click.option("--no-context", is_flag=True, help="Do not write the context `local` for the client commands.")
def command(no_context: bool, drain_timeout: str | None, keep_alive: str | None, **flags: Any) -> int:
    """Start the platform and keep serving until Ctrl-C or SIGTERM, which lets calls end first.

    Each option can be set as SEPTET_<NAME> in the environment too, for example SEPTET_DATA_DIR; see
    docs/configuration.md.
    """
    flags["drain_timeout"] = None if drain_timeout is None else parse_duration(drain_timeout)
    timed = keep_alive not in (None, "auto")
    flags["keep_alive"] = str(parse_duration(keep_alive)) if keep_alive and timed else keep_alive
    try:
        settings = load(flags)
        from septet.app import run

        def on_ready(ready: Mapping[str, Any]) -> None:
            announce(ready, as_json=settings.ready_json, keep=not no_context)

        return int(run(settings, on_ready=on_ready))
    except InvalidInput as error:
        raise Failure(error.message, hint=error.hint, code=Exit.USAGE) from error
    except SeptetError as error:
        raise Failure(error.message, hint=error.hint) from error


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
