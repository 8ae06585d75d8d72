"""The read-only root that all instances share: prepared once, as plain folders and files on the host.

Nothing of the host's own /etc is visible but what programs need to start: the dynamic loader's cache, the
alternatives, the public certificates, the time zone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from pathlib import Path

from septet.drivers.sandbox.process.rights import SANDBOX_ID

_FOLDERS = ("usr", "proc", "sys", "tmp", "run", "etc/ssl", "dev/shm", "function", "opt/septet/runtime", "var/tmp")
_LINKED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_DEVICES = ("null", "zero", "full", "random", "urandom")
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}
# What the host's administrator set for installers; it is written below /run for builds alone.
TASK_FILES = {"/etc/pip.conf": "/run/etc/pip.conf", "/etc/npmrc": "/run/etc/npmrc", "/etc/gemrc": "/run/etc/gemrc"}
RESOLVER = "/run/resolv.conf"
_COPIED = ("etc/ld.so.cache", "etc/mime.types", "etc/protocols", "etc/services", "etc/ssl/openssl.cnf")
_TREES = ("etc/alternatives", "etc/ssl/certs")
_TEXTS = {
    "etc/passwd": f"root:x:0:0:root:/:/usr/sbin/nologin\nfunction:x:{SANDBOX_ID}:{SANDBOX_ID}::/tmp:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    "etc/group": f"root:x:0:\nfunction:x:{SANDBOX_ID}:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost septet\n::1 localhost\n",
    "etc/hostname": "septet\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    "etc/gai.conf": "",
    "etc/host.conf": "multi on\n",
}
# Files of /proc that runtimes read to size themselves, and that tell nothing of other tenants.
_PROC_KEPT = frozenset({"cpuinfo", "meminfo", "stat", "uptime", "version", "filesystems", "loadavg", "sys"})
# What changes when a package manager, or an administrator, puts programs below /usr.
_PACKAGE_MARKS = (
    "/var/lib/dpkg/status",
    "/var/lib/rpm",
    "/lib/apk/db/installed",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/libexec",
    "/usr/local/bin",
    "/usr/local/sbin",
)


class Skeleton:
    """`root` is the shared root, `empty` an empty folder, `point` where an instance mounts its root, `stage`
    where a zygote binds ahead what instances have in common."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.empty = folder / "empty"
        self.point = folder / "point"
        self.stage = folder / "stage"
        self._made: set[str] = set()
        self._folders: list[str] = []

    def prepare(self) -> None:
        """Makes it anew. Instances of an earlier life must be gone."""
        shutil.rmtree(self.root, ignore_errors=True)
        self._made.clear()
        self._folders = []
        for path in (self.root, self.empty, self.point, self.stage):
            path.mkdir(parents=True, exist_ok=True, mode=0o755)
        for name in _FOLDERS:
            (self.root / name).mkdir(parents=True, exist_ok=True, mode=0o755)
        for name in _LINKED:
            self._like_host(name)
        for name, text in _TEXTS.items():
            (self.root / name).write_text(text)
        for name in _DEVICES:
            (self.root / "dev" / name).touch()
        links = {f"dev/{name}": target for name, target in _DEVICE_LINKS.items()}
        links |= {name.removeprefix("/"): target for name, target in TASK_FILES.items()}
        links |= {"etc/resolv.conf": RESOLVER, "etc/mtab": "/proc/self/mounts"}
        for name, target in links.items():
            (self.root / name).symlink_to(target)
        for name in _COPIED:
            if (Path("/") / name).is_file():
                shutil.copyfile(Path("/") / name, self.root / name)
        for name in _TREES:
            _copy_links(Path("/") / name, self.root / name)
        self._local_time()
        self._open_to_all()

    def _open_to_all(self) -> None:
        """Instances have other uids, and the platform's umask may keep everybody out (as the unit's does)."""
        for path in (self.root, self.empty, self.point):
            path.chmod(0o755)
        for folder, folders, files in os.walk(self.root):
            for name, mode in (*((name, 0o755) for name in folders), *((name, 0o644) for name in files)):
                if not (path := Path(folder) / name).is_symlink():
                    path.chmod(mode)

    def _like_host(self, name: str) -> None:
        """/bin and the like: links into /usr where the host has it so, else folders to bind."""
        host, inside = Path("/") / name, self.root / name
        if host.is_symlink():
            inside.symlink_to(host.readlink())
        elif host.is_dir():
            inside.mkdir(exist_ok=True)

    def host_folders(self) -> list[str]:
        """Folders of the host that are bound read-only at their own path."""
        if not self._folders:
            self._folders = self._find_folders()
        return self._folders

    def _find_folders(self) -> list[str]:
        return [
            "/usr",
            *(f"/{name}" for name in _LINKED if (self.root / name).is_dir() and not (self.root / name).is_symlink()),
        ]

    def _local_time(self) -> None:
        zone = Path("/etc/localtime")
        if zone.exists():
            shutil.copyfile(zone, self.root / "etc/localtime")

    def mount_point(self, target: str, folder: bool = True) -> None:
        """Makes sure that something can be mounted at `target`."""
        if target in self._made:
            return
        path = self.root / target.removeprefix("/")
        if folder:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            path.chmod(0o644)
            path = path.parent
        for made in (path, *path.parents):
            if made == self.root or self.root not in made.parents:
                break
            made.chmod(0o755)
        self._made.add(target)


def _copy_links(source: Path, target: Path) -> None:
    """A flat copy; links stay links when they lead to /usr or to a neighbour, as those are visible inside."""
    target.mkdir(parents=True, exist_ok=True)
    if not source.is_dir():
        return
    for entry in os.scandir(source):
        if entry.is_symlink():
            link = str(Path(entry.path).readlink())
            if "/" not in link or re.match(r"/(usr|bin|sbin|lib|etc/alternatives)/", link):
                (target / entry.name).symlink_to(link)
                continue
        if entry.is_file():
            shutil.copyfile(entry.path, target / entry.name)


def proc_masks() -> list[str]:
    """Entries of /proc that anybody could read or write and no runtime needs, and this boot's identity. Folders
    end in a slash."""
    masks = ["sys/kernel/random/boot_id"]
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() or entry.name in _PROC_KEPT or entry.is_symlink():
            continue
        try:
            mode = entry.stat().st_mode
        except OSError:
            continue
        if mode & (stat.S_IRWXO):
            masks.append(f"{entry.name}/" if stat.S_ISDIR(mode) else entry.name)
    return sorted(masks)


def known_privileged_files(folders: list[str], cache: Path) -> list[str]:
    """As `privileged_files`, from `cache` while no package was installed since: the search takes a second or two."""
    marks = [str(path.stat().st_mtime_ns) for name in _PACKAGE_MARKS if (path := Path(name)).exists()]
    key = [folders, marks]
    try:
        kept = json.loads(cache.read_text())
        if kept["key"] == key:
            return [str(path) for path in kept["files"] if Path(path).exists()]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none yet, or a torn one: search
    found = privileged_files(folders)
    cache.write_text(json.dumps({"key": key, "files": found}))
    return found


def privileged_files(folders: list[str]) -> list[str]:
    """Files that would give rights to whoever runs them: setuid, setgid, with file capabilities.

    The mounts are nosuid anyway, so this only keeps them from being looked at and tried.
    """
    found: list[str] = []
    pending = list(folders)
    while pending:
        try:
            entries = os.scandir(pending.pop())
        except OSError:
            continue
        with entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif entry.is_file(follow_symlinks=False) and _gives_rights(entry):
                    found.append(entry.path)
    return sorted(found)


def _gives_rights(entry: os.DirEntry[str]) -> bool:
    try:
        mode = entry.stat(follow_symlinks=False).st_mode
    except OSError:
        return False
    return bool(mode & (stat.S_ISUID | stat.S_ISGID)) or (bool(mode & stat.S_IXOTH) and _has_capability(entry.path))


def _has_capability(path: str) -> bool:
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False
