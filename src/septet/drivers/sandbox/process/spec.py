"""What the platform tells the launcher and the instance's first process. Plain data: read in small processes.

Three messages leave the platform: a `Header` (no secret in it) to the launcher, the `Spec` through a descriptor
that the child alone reads, and commands over the control socket (see `init.py`).
"""

from __future__ import annotations

import marshal
import os
from dataclasses import dataclass, field, replace
from typing import Any

_MARSHAL = 2
PACKET = 32768
"""Bytes of the longest message that a first process takes in one piece."""


@dataclass(frozen=True)
class Header:
    """The launcher's part: which walls to clone, and the uid and gid on the host to map."""

    id: str
    walls: bool
    rootless: bool
    uid: int
    gid: int
    family: str


@dataclass(frozen=True)
class Mount:
    """A folder or file of the host, seen inside at `target`; a hidden one does not show where it came from."""

    source: str
    target: str
    writable: bool = False
    hidden: bool = False


@dataclass(frozen=True)
class Spec:
    """Everything about one instance. Sizes in bytes.

    `root` is the skeleton on the host, `empty` an empty folder and `point` where the new root is mounted before
    it becomes the root. `cgroups` are the `cgroup.procs` files to join. `port` is where the process listens (0:
    nowhere), `gateway` where the first process listens for the platform. With `wait` the process starts only
    after a "go". With `fork` the process that runs the command is a fork of the first one, not exec'ed: only where
    a zygote started that. A `pooled` one is generic: it waits behind its walls for the spec of its function.
    A `parked` one has its interpreter running too, and waits for the rest: its `trees` is the host's folder of frozen
    trees, which it lets go of before the function's code is reached, and the rest names its tree within it.
    One that `keeps` is the first process of a namespace set (`keeper.py`), with the same trees and with `groups`, the
    folders that hold its instances' control groups, the one that counts processes first. Such an instance makes its
    groups itself: `limits` are what it writes into their files, in that order. One that is `ahead` is a function's
    zygote there: its link is the keeper's.
    Without `walls` nothing is mounted or dropped, and all paths are the host's.
    """

    id: str
    walls: bool
    rootless: bool
    uid: int
    gid: int
    command: list[str]
    env: dict[str, str]
    working_directory: str
    files: dict[str, bytes] = field(repr=False)
    root: str = ""
    empty: str = ""
    point: str = ""
    mounts: list[Mount] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    proc_masks: list[str] = field(default_factory=list)
    cgroups: list[str] = field(default_factory=list)
    tmp_bytes: int = 0
    shm_bytes: int = 0
    rlimits: dict[str, int] = field(default_factory=dict)
    port: int = 0
    gateway: int = 0
    wait: bool = False
    link: bool = True
    fork: bool = False
    pooled: bool = False
    parked: bool = False
    trees: str = ""
    keeps: bool = False
    ahead: bool = False
    groups: list[str] = field(default_factory=list)
    limits: list[dict[str, str]] = field(default_factory=list)

    def within(self, cgroups: list[str]) -> Spec:
        return replace(self, cgroups=cgroups)

    def encode(self) -> bytes:
        """In the format of `marshal` that every Python 3 reads: it takes no code of a library to do so, and each page
        that a forked process touches is one more to be copied."""
        mounts = [(item.source, item.target, item.writable, item.hidden) for item in self.mounts]
        return marshal.dumps({**self.__dict__, "mounts": mounts}, _MARSHAL)


_FUNCTIONS = ("env", "working_directory", "tmp_bytes", "shm_bytes", "rlimits", "port", "gateway")


def encode_function(spec: Spec) -> bytes:
    """What of `spec` a parked instance has not yet, as the message that it becomes that."""
    data: dict[str, Any] = {name: getattr(spec, name) for name in _FUNCTIONS}
    data["files"] = spec.files
    return marshal.dumps((data, [(item.source, item.target) for item in spec.mounts]), _MARSHAL)


def is_function(message: bytes) -> bool:
    """Whether it was made by `encode_function`: the others are objects of JSON, this one a tuple of `marshal`."""
    return message.startswith(b"(")


def decode_function(message: bytes, parked: Spec) -> Spec:
    """The inverse of `encode_function`, for what waited as `parked`; `mounts` are the function's own alone."""
    fields, trees = marshal.loads(message)  # noqa: S302 - the platform wrote it, and nobody else can
    own = [Mount(source, target, hidden=True) for source, target in trees]
    spec = object.__new__(Spec)
    spec.__dict__.update(parked.__dict__)
    spec.__dict__.update(fields, mounts=own, masks=[], proc_masks=[])
    return spec


def decode(data: bytes) -> Spec:
    """The inverse of `Spec.encode`."""
    fields: dict[str, Any] = marshal.loads(data)  # noqa: S302 - the platform wrote it, and nobody else can
    fields["mounts"] = [Mount(*item) for item in fields["mounts"]]
    spec = object.__new__(Spec)
    spec.__dict__.update(fields)
    return spec


def read(descriptor: int) -> bytes:
    """All that is in a file of `into_memory`, or comes out of a pipe until that ends. Closes it."""
    data = b""
    while more := os.read(descriptor, 65536):
        data += more
    os.close(descriptor)
    return data


def into_memory(spec: Spec | bytes) -> int:
    """A descriptor from which the spec is read, on no file system."""
    descriptor = os.memfd_create("spec", os.MFD_CLOEXEC)
    view = memoryview(spec if isinstance(spec, bytes) else spec.encode())
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
