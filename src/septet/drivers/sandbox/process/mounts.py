"""Builds what an instance sees of the file system, inside its own mount namespace, and moves in.

A mount's source shows in /proc/self/mountinfo. So trees and the skeleton, whose paths would tell the data
directory, are mounted through a read-only overlay whose layers are named by descriptor; only where the kernel
refuses that, by a bind.
"""

from __future__ import annotations

import os

from septet.drivers.sandbox.process import syscalls as sys_
from septet.drivers.sandbox.process.spec import Mount, Spec

_READ_ONLY = sys_.ATTR_RDONLY | sys_.ATTR_NOSUID | sys_.ATTR_NODEV
_DEVICE = sys_.ATTR_NOSUID | sys_.ATTR_NOEXEC
_DEVICES = ("null", "zero", "full", "random", "urandom")
_FLAGS = sys_.MS_NOSUID | sys_.MS_NODEV
_INODE_BYTES = 4096
SHELF = "/var/tmp"  # noqa: S108

_staged: dict[str, str] = {}
"""In a zygote and its children: where a folder or device of the host is bound ahead."""
_masked: set[str] = set()
"""What is hidden there already."""


def build(spec: Spec) -> None:
    """Builds the root, of what instances of one runtime have in common. Needs CAP_SYS_ADMIN over the namespace."""
    sys_.mount("none", "/", "", sys_.MS_REC | sys_.MS_PRIVATE)
    root = spec.point
    _hidden(spec.root, root, spec.empty)
    for item in spec.mounts:
        _mount(item, root + item.target, spec.empty)
    sys_.bind_each("/dev/null", [root + path for path in spec.masks if path not in _masked])
    for name in _DEVICES:
        _copy(f"/dev/{name}", f"{root}/dev/{name}", _DEVICE)
    _proc(root, spec.proc_masks)


def stage(place: str, folders: list[str], masks: list[str]) -> None:
    """In a zygote: leaves the host's mount namespace, and binds the host's folders and devices in the folder `place`
    with all that belongs to it, so that each instance copies a whole one by one call."""
    sys_.unshare(sys_.CLONE_NEWNS)
    # What is unmounted on the host must not stay in use here.
    sys_.mount("none", "/", "", sys_.MS_REC | sys_.MS_SLAVE)
    try:
        sys_.mount("tmpfs", place, "tmpfs", _FLAGS, "size=65536,mode=700")
        sys_.mount("none", place, "", sys_.MS_PRIVATE)
        for number, source in enumerate(folders):
            _bind_ahead(source, f"{place}/{number}", _READ_ONLY)
            own = [path for path in masks if path.startswith(f"{source}/")]
            sys_.bind_each("/dev/null", [f"{place}/{number}{path.removeprefix(source)}" for path in own])
            _masked.update(own)
        for name in _DEVICES:
            _bind_ahead(f"/dev/{name}", f"{place}/{name}", _DEVICE)
    except OSError:
        _staged.clear()
        _masked.clear()


def _bind_ahead(source: str, place: str, attributes: int) -> None:
    if os.path.isdir(source):  # noqa: PTH112
        os.mkdir(place)  # noqa: PTH102
    else:
        os.close(os.open(place, os.O_CREAT | os.O_CLOEXEC, 0o600))
    sys_.bind(source, place, attributes)
    # What the host mounts in there later on would come without the attributes.
    sys_.mount("none", place, "", sys_.MS_REC | sys_.MS_PRIVATE)
    _staged[source] = place


def _copy(source: str, target: str, attributes: int) -> None:
    """Binds a folder or file of the host with these attributes, of which one that is staged has them already."""
    if place := _staged.get(source):
        sys_.mount(place, target, "", sys_.MS_BIND | sys_.MS_REC)
    else:
        sys_.bind(source, target, attributes)


def enter(spec: Spec, own: list[Mount]) -> None:
    """Adds what is the instance's own, and pivots into the root."""
    root = spec.point
    for item in own:
        _mount(item, root + item.target, spec.empty)
    _scratch(f"{root}/tmp", spec.tmp_bytes, 0)  # noqa: S108
    _scratch(f"{root}/dev/shm", spec.shm_bytes, sys_.MS_NOEXEC)  # noqa: S108
    if spec.parked:
        _shelve(root, spec)
    _private_files(f"{root}/run", spec)
    sys_.pivot_into(root)


def _shelve(root: str, spec: Spec) -> None:
    """All trees within reach of our own code, until it is known which one is wanted."""
    sys_.mount("tmpfs", root + SHELF, "tmpfs", _FLAGS, "size=65536,mode=700")
    for name in ("trees", "empty"):
        os.mkdir(f"{root}{SHELF}/{name}", 0o755)  # noqa: PTH102
    sys_.bind(spec.trees, f"{root}{SHELF}/trees", _READ_ONLY, recursive=False)


def furnish(spec: Spec, parked: Spec) -> None:
    """In a parked instance: mounts what the function needs, sizes its scratch space, and lets go of the trees."""
    for item in spec.mounts:
        _hidden(f"{SHELF}/trees/{item.source}", item.target, f"{SHELF}/empty")
    sys_.unmount(SHELF)
    if spec.tmp_bytes != parked.tmp_bytes:
        _scratch("/tmp", spec.tmp_bytes, sys_.MS_REMOUNT)  # noqa: S108
    if spec.shm_bytes != parked.shm_bytes:
        _scratch("/dev/shm", spec.shm_bytes, sys_.MS_REMOUNT | sys_.MS_NOEXEC)  # noqa: S108
    if spec.files:
        sys_.unmount("/run")
        _private_files("/run", spec)


def keep(spec: Spec) -> None:
    """For the first process of a set: its root, with all that its instances' own parts are made of on the shelf."""
    root = spec.point
    _shelve(root, spec)
    for number, folder in enumerate(spec.groups):
        os.mkdir(f"{root}{SHELF}/{number}", 0o755)  # noqa: PTH102
        attributes = sys_.ATTR_NOSUID | sys_.ATTR_NODEV | sys_.ATTR_NOEXEC
        sys_.bind(folder, f"{root}{SHELF}/{number}", attributes, recursive=False)
    _private_files(f"{root}/run", spec)
    sys_.pivot_into(root)


def settle(spec: Spec) -> None:
    """In an instance of a set, whose mounts it has a copy of: adds what is its own, and lets go of the shelf."""
    for item in spec.mounts:
        _hidden(f"{SHELF}/trees/{item.source}", item.target, f"{SHELF}/empty")
    sys_.unmount(SHELF)
    _scratch("/tmp", spec.tmp_bytes, 0)  # noqa: S108
    _scratch("/dev/shm", spec.shm_bytes, sys_.MS_NOEXEC)  # noqa: S108
    if spec.files:
        _private_files("/run", spec)


def _mount(item: Mount, target: str, empty: str) -> None:
    if item.writable:
        sys_.bind(item.source, target, sys_.ATTR_NOSUID | sys_.ATTR_NODEV, recursive=False)
    elif item.hidden:
        _hidden(item.source, target, empty)
    else:
        _copy(item.source, target, _READ_ONLY)


def _hidden(source: str, target: str, empty: str) -> None:
    upper = os.open(source, os.O_PATH | os.O_DIRECTORY)
    lower = os.open(empty, os.O_PATH | os.O_DIRECTORY)
    layers = f"lowerdir=/proc/self/fd/{upper}:/proc/self/fd/{lower}"
    try:
        sys_.mount("septet", target, "overlay", _FLAGS | sys_.MS_RDONLY, layers)
    except OSError:
        sys_.bind(source, target, _READ_ONLY)
    finally:
        os.close(upper)
        os.close(lower)


def _scratch(target: str, size: int, flags: int) -> None:
    # Inodes take kernel memory that the size does not count.
    inodes = max(1024, size // _INODE_BYTES)
    sys_.mount("tmpfs", target, "tmpfs", _FLAGS | flags, f"size={size},nr_inodes={inodes},mode=1777")


def _private_files(target: str, spec: Spec) -> None:
    """/run with the secrets: on a file system of its own, gone with the instance and never on a disk."""
    # A few pages for the folders beside what the files take, rounded up to whole pages.
    size = 65536 + sum(len(data) + 8192 for data in spec.files.values())
    sys_.mount("tmpfs", target, "tmpfs", _FLAGS | sys_.MS_NOEXEC, f"size={size},mode=755")
    for name, data in spec.files.items():
        path = target + name.removeprefix("/run")
        _folders(target, os.path.dirname(path), spec)  # noqa: PTH120
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o400)
        try:
            if not spec.rootless:
                os.fchown(descriptor, spec.uid, spec.gid)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)
    sys_.set_attributes(target, sys_.ATTR_RDONLY)


def _folders(top: str, path: str, spec: Spec) -> None:
    if path == top or os.path.isdir(path):  # noqa: PTH112
        return
    _folders(top, os.path.dirname(path), spec)  # noqa: PTH120
    os.mkdir(path, 0o500)  # noqa: PTH102
    if not spec.rootless:
        os.chown(path, spec.uid, spec.gid)


def _proc(root: str, masks: list[str]) -> None:
    target, flags = f"{root}/proc", _FLAGS | sys_.MS_NOEXEC
    try:
        sys_.mount("proc", target, "proc", flags, "hidepid=2")
    except OSError:
        sys_.mount("proc", target, "proc", flags)
    sys_.bind(f"{target}/sys", f"{target}/sys", _READ_ONLY | sys_.ATTR_NOEXEC)
    # No attributes: nothing can be done with the null device, and there are dozens of masks at every start. Folders
    # are hidden by an empty one of our own root, which nobody can write.
    sys_.bind_each("/dev/null", [f"{target}/{name}" for name in masks if name[-1] != "/"])
    sys_.bind_each(f"{root}/sys", [f"{target}/{name}" for name in masks if name[-1] == "/"])
