"""`septet service`: the platform as a hardened unit of systemd."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import click

from septet.cli.failures import Exit, Failure
from septet.cli.options import confirm, with_yes
from septet.cli.output import note

NAME = "septet.service"
UNIT_DIR = Path("/etc/systemd/system")
TOKEN_FILE = "/var/lib/septet/admin-token"  # noqa: S105 - where it stands, not what it is

# What is NOT here matters as much as what is. The platform makes user, mount, pid and network namespaces and
# cgroups for each instance, so these stay away: RestrictNamespaces, PrivateUsers, ProtectControlGroups,
# ProtectKernelTunables and ProtectProc (a masked /proc forbids mounting a fresh one in a user namespace),
# MemoryDenyWriteExecute (Node's compiler), RestrictSUIDSGID (mode bits of unpacked trees are checked by us),
# ProtectHostname (an instance names its own UTS namespace), ProtectKernelLogs (it covers a part of /proc),
# ProtectClock (it closes the list of devices), PrivateNetwork, and any SystemCallFilter: instances
# carry filters of their own.
UNIT = """\
[Unit]
Description=Septet, a serverless platform
Documentation=https://github.com/septet/septet/tree/main/docs
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
NotifyAccess=main
ExecStart={program} up --listen {listen} --data-dir %S/septet --no-context
Environment=PYTHONUNBUFFERED=1
KillMode=mixed
KillSignal=SIGTERM
TimeoutStartSec=120
TimeoutStopSec=90
Restart=on-failure
RestartSec=2

# A subtree of cgroups of its own, for the limits of each instance.
Delegate=yes
OOMPolicy=continue
TasksMax=infinity
LimitNOFILE=65536

StateDirectory=septet
StateDirectoryMode=0700
RuntimeDirectory=septet
RuntimeDirectoryMode=0700
UMask=0077

ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectKernelModules=yes
RestrictRealtime=yes
LockPersonality=yes
SystemCallArchitectures=native
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
CapabilityBoundingSet={capabilities}

[Install]
WantedBy=multi-user.target
"""
# Namespaces, mounts and cgroups; veth and nftables; switching to each instance's uid and owning its files;
# ending its processes; binding a port below 1024.
CAPABILITIES = (
    "CAP_SYS_ADMIN",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RESOURCE",
    "CAP_MKNOD",
)


def unit_text(program: str, listen: str) -> str:
    """The unit, for this program; `listen` is HOST:PORT."""
    for word in (program, listen):
        if any(c.isspace() or c in "%\"'\\;$" for c in word):
            raise Failure(f"{word!r} cannot stand in a unit", hint="no blanks, quotes, % or $", code=Exit.USAGE)
    return UNIT.format(program=program, listen=listen, capabilities=" ".join(CAPABILITIES))


@click.group()
def command() -> None:
    """Run the platform under systemd."""


def _with_listen(function: click.decorators.FC) -> click.decorators.FC:
    return click.option(
        "--listen", default="127.0.0.1:8080", show_default=True, metavar="HOST:PORT", help="Where to listen."
    )(function)


@command.command(
    "install",
    epilog="\b\nExamples:\n  septet service install --print\n  sudo septet service install --listen 0.0.0.0:8080 --yes",
)
@click.option("--print", "only_print", is_flag=True, help="Show the unit and change nothing.")
@click.option("--start/--no-start", default=True, help="Enable and start it too.  [default: start]")
@_with_listen
@with_yes
def install(only_print: bool, start: bool, listen: str, yes: bool) -> None:
    """Install the systemd unit, and start it."""
    program = program_path()
    text = unit_text(program, listen)
    if only_print:
        click.echo(text, nl=False)
        return
    if program.startswith(("/home/", "/root/")):
        raise Failure(
            f"{program} is in a home, which the unit does not see (ProtectHome)",
            hint="install septet into /opt/septet: `python3 -m venv /opt/septet && /opt/septet/bin/pip install septet`",
        )
    target = UNIT_DIR / NAME
    confirm(f"write {target}" + (" and start it?" if start else "?"), yes)
    try:
        target.write_text(text)
    except OSError as error:
        raise Failure(f"{target} cannot be written: {error.strerror}", hint="run it as root") from None
    systemctl("daemon-reload")
    if start:
        systemctl("enable", "--now", NAME)
    note(f"{target} written; to use it: septet context set local --url http://{listen} --token-file {TOKEN_FILE}")


@command.command("uninstall", epilog="\b\nExample:\n  sudo septet service uninstall --yes")
@with_yes
def uninstall(yes: bool) -> None:
    """Stop the unit and remove it; the state in /var/lib/septet stays."""
    target = UNIT_DIR / NAME
    if not target.exists():
        raise Failure(f"{target} is not there", code=Exit.NOT_FOUND)
    confirm(f"stop the platform and remove {target}?", yes)
    systemctl("disable", "--now", NAME)
    try:
        target.unlink()
    except OSError as error:
        raise Failure(f"{target} cannot be removed: {error.strerror}", hint="run it as root") from None
    systemctl("daemon-reload")
    note("removed; the state stays in /var/lib/septet")


@command.command("status", epilog="\b\nExample:\n  septet service status")
def status() -> int:
    """Show what systemd says of the unit; ends with 3 when it is not installed, 1 when it does not run."""
    if not (UNIT_DIR / NAME).exists():
        raise Failure("the service is not installed", hint="`septet service install`", code=Exit.NOT_FOUND)
    done = subprocess.run([need_systemctl(), "status", "--no-pager", NAME], check=False)
    return Exit.FAILED if done.returncode else Exit.OK


def program_path() -> str:
    """The absolute path of this program, as the unit has to start it."""
    beside = Path(sys.executable).with_name("septet")
    found = str(beside) if beside.exists() else shutil.which("septet")
    if not found:
        raise Failure("the program `septet` is not installed", hint="install the package first: `pip install .`")
    return found


def need_systemctl() -> str:
    found = shutil.which("systemctl")
    if not found:
        raise Failure("this host has no systemctl", hint="start `septet up` with what the host has instead")
    return found


def systemctl(*arguments: str) -> None:
    done = subprocess.run([need_systemctl(), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it gave no reason"]
        raise Failure(f"systemctl {' '.join(arguments)}: {lines[-1]}")
