"""The programs that egress needs, run with argument lists: no word of them is read by a shell."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from septet.drivers.sandbox.process.leash import Leash
from septet.model.errors import InvalidInput, Unavailable

# Where Debian keeps each, and where an ordinary user's PATH does not look.
PACKAGES = {"ip": "iproute2", "nft": "nftables", "nsenter": "util-linux", "unshare": "util-linux", "pasta": "passt"}
_PATH = f"{os.defpath}:/usr/local/sbin:/usr/sbin:/sbin"
TUNNEL = "/dev/net/tun"
_TIMEOUT = 15.0
# Without the first flag the gateway's address leads to servers on this host's loopback.
_PASTA = ("--no-map-gw", "--config-net", "--ipv4-only", "--quiet", "--foreground")
# nsenter would leave a user that is not 0 in there without rights: the one that the program needs (CAP_NET_ADMIN)
# is handed on over the exec.
_JOIN = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
for kind in ("user", "net"):
    check(libc.setns(os.open(f"/proc/{sys.argv[1]}/ns/{kind}", os.O_RDONLY), 0))
words = ctypes.c_uint32
check(libc.capset((words * 2)(0x20080522, 0), (words * 6)(1 << 12, 1 << 12, 1 << 12)))
check(libc.prctl(47, 2, 12, 0, 0))
os.execv(sys.argv[2], sys.argv[2:])
"""
# Waits until it is tied to the platform: one that is killed before that closes the pipe, and nothing starts.
_TIED = ("/bin/sh", "-c", 'read -r _ && exec "$@" </dev/null', "sh")
_NO_PORTS = ("-t", "none", "-u", "none", "-T", "none", "-U", "none")


def find(program: str) -> str | None:
    """The program's path, also where only root's PATH looks."""
    return shutil.which(program) or shutil.which(program, path=_PATH)


def need(program: str) -> str:
    """The program's path; InvalidInput names the package to install."""
    if found := find(program):
        return found
    raise InvalidInput(
        f"network mode egress needs the program {program!r}, which this host lacks",
        hint=f"apt install {PACKAGES[program]}",
        details={"field": "network.mode"},
    )


def tunnel() -> bool:
    """Whether this user may make the interface that pasta needs."""
    return os.access(TUNNEL, os.R_OK | os.W_OK)


async def run(program: str, *arguments: str, text: str = "") -> str:
    """Runs it with `text` on standard input and returns its output; Unavailable carries what it complained about."""
    process = await asyncio.create_subprocess_exec(
        need(program),
        *arguments,
        stdin=asyncio.subprocess.PIPE if text else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(text.encode() if text else None), _TIMEOUT)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if isinstance(error, TimeoutError):
            raise Unavailable(f"egress: {program} did not end within {_TIMEOUT:.0f} s") from None
        raise
    if process.returncode != 0:
        complaint = err.decode(errors="replace").strip().replace("\n", "; ")[:500]
        raise Unavailable(f"egress: {program} {' '.join(arguments)} failed: {complaint}")
    return out.decode(errors="replace")


async def nft(rules: str) -> None:
    """Applies the rules in one transaction."""
    await run("nft", "-f", "-", text=rules)


async def inside(pid: int, user: bool, program: str, *arguments: str, text: str = "") -> str:
    """Runs a program of this host in the network namespace of `pid` (and, with `user`, in its user namespace)."""
    if user:
        return await run(sys.executable, "-I", "-S", "-c", _JOIN, str(pid), need(program), *arguments, text=text)
    return await run("nsenter", "--target", str(pid), "--net", "--", need(program), *arguments, text=text)


async def pasta(pid: int, mark: str, leash: Leash) -> asyncio.subprocess.Process:
    """Starts pasta for the namespaces of `pid`, tied to `leash`, and waits until its interface is up.

    It does not end by itself with them, so `mark` makes it findable for `end_pasta`. Unavailable carries what it
    complained about.
    """
    with tempfile.TemporaryDirectory(prefix=f"{mark}-") as directory:
        ready, log = Path(directory) / "pid", Path(directory) / "log"
        with log.open("wb") as complaints:
            process = await asyncio.create_subprocess_exec(
                *(*_TIED, need("pasta"), *_PASTA, *_NO_PORTS, "--pid", str(ready), str(pid)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=complaints,
            )
        try:
            assert process.stdin is not None
            leash.tie(process.pid)
            process.stdin.write(b"\n")
            await _until_up(process, ready, log)
            process.stdin.close()
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            if isinstance(error, OSError):
                raise Unavailable(f"egress: pasta could not be tied to the platform: {error}") from error
            raise
    return process


async def _until_up(process: asyncio.subprocess.Process, ready: Path, log: Path) -> None:
    deadline = time.monotonic() + _TIMEOUT
    # The pid file is written last, after the interface is configured.
    while not _text(ready):
        if process.returncode is not None or time.monotonic() > deadline:
            raise Unavailable(f"egress: pasta failed: {_text(log)[:500]}")
        await asyncio.sleep(0.005)


def _text(path: Path) -> str:
    """What the file holds now, if it is there."""
    return path.read_text(errors="replace").strip() if path.exists() else ""


def end_pasta(mark: str) -> None:
    """Ends each pasta of this user that was started with `mark`: a killed platform leaves them behind."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            mine = entry.stat().st_uid == os.geteuid() or os.geteuid() == 0
            if not mine or not (entry / "comm").read_text().startswith(("pasta", "passt")):
                continue
            if f"/{mark}-".encode() in (entry / "cmdline").read_bytes():
                os.kill(int(entry.name), signal.SIGTERM)


async def addresses() -> set[str]:
    """All IPv4 addresses of this host."""
    found = json.loads(await run("ip", "-json", "-4", "address", "show") or "[]")
    return {info["local"] for link in found for info in link.get("addr_info", ())}


async def interfaces(prefix: str) -> list[str]:
    """Names of the veth interfaces that start with `prefix`."""
    found = json.loads(await run("ip", "-json", "link", "show", "type", "veth") or "[]")
    return [link["ifname"] for link in found if link.get("ifname", "").startswith(prefix)]


async def tables(prefix: str) -> list[str]:
    """Text of each of this host's nftables tables whose name starts with `prefix`."""
    names = [line.split()[-1] for line in (await run("nft", "list", "tables", "inet")).splitlines()]
    return [await run("nft", "list", "table", "inet", name) for name in names if name.startswith(prefix)]


def forwarding() -> bool:
    """Whether this host forwards IPv4 packets."""
    return _FORWARD.read_text().strip() == "1"


def forward(on: bool) -> None:
    try:
        _FORWARD.write_text("1" if on else "0")
    except OSError as error:
        raise Unavailable(f"egress: cannot set net.ipv4.ip_forward: {error.strerror}") from None


_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
