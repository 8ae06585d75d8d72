"""The platform as an ordinary user, when the tests run as root: a prefix for the command of `Platform`.

Checkout and interpreter may lie below a folder that only root may enter. In a mount namespace of its own, each such
folder is covered by an open one, into which what is needed is bound at its own path; /dev/net/tun gets the mode that
udev gives it; then all rights are given up.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import septet

USER = 54321
REPOSITORY = Path(__file__).parents[2]
SOURCE = str(Path(septet.__file__).parent.parent)
BECOME = """
import os, sys
sys.path.insert(0, sys.argv[1])
from septet.drivers.sandbox.process import syscalls as s
folders = sys.argv[3].split(os.pathsep)
s.unshare(s.CLONE_NEWNS)
s.mount("none", "/", "", s.MS_REC | s.MS_PRIVATE)
opened = {path: os.open(path, os.O_PATH) for path in folders}
for path in folders:
    parts = path.strip("/").split("/")
    for depth in range(1, len(parts)):
        above = "/" + "/".join(parts[:depth])
        if not os.stat(above).st_mode & 0o001:
            s.mount("tmpfs", above, "tmpfs", 0, "mode=755,size=1m")
            for inner in (one for one in folders if one.startswith(above + "/")):
                os.makedirs(inner, exist_ok=True)
                s.mount(f"/proc/self/fd/{opened[inner]}", inner, "", s.MS_BIND | s.MS_REC)
if os.path.exists("/dev/net/tun"):
    s.mount("tmpfs", "/dev/net", "tmpfs", 0, "mode=755,size=16k")
    os.umask(0)
    os.mknod("/dev/net/tun", 0o20666, os.makedev(10, 200))
    os.umask(0o022)
os.setgroups([])
os.setresgid(*[int(sys.argv[2])] * 3)
os.setresuid(*[int(sys.argv[2])] * 3)
os.chdir("/")
os.execv(sys.argv[4], sys.argv[4:])
"""


@contextlib.contextmanager
def home(name: str = "e2e") -> Iterator[Path]:
    """A folder that belongs to the ordinary user; nothing of it stays."""
    base = Path("/var/tmp") / f"septet-{name}-{os.getpid()}"
    base.mkdir(mode=0o755)
    os.chown(base, USER, USER)
    try:
        yield base
    finally:
        shutil.rmtree(base)


def prefix() -> tuple[str, ...]:
    """What stands before a command so that it runs without root's rights."""
    folders = dict.fromkeys([SOURCE, str(REPOSITORY), sys.prefix, sys.base_prefix])
    return (sys.executable, "-c", BECOME, SOURCE, str(USER), os.pathsep.join(folders))
