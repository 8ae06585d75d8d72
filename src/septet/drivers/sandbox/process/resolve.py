"""Turns a launch request into the spec of an instance, or says why that cannot be."""

from __future__ import annotations

import os
import posixpath
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from septet.drivers.sandbox.process.park import PARK, VARIABLE
from septet.drivers.sandbox.process.settings import ProcessSettings
from septet.drivers.sandbox.process.skeleton import RESOLVER, TASK_FILES, Skeleton
from septet.drivers.sandbox.process.spec import Mount, Spec
from septet.model.errors import InvalidInput, NotFound
from septet.model.function import Limits
from septet.model.runtime import Runtime
from septet.ports.blobs import Trees
from septet.ports.sandbox import Container, LaunchRequest, Volume

RUNTIME_TARGET = "/opt/septet/runtime"
_PATH = "/usr/local/bin:/usr/bin:/bin"
_MIB = 1024 * 1024
_SHM_MAX = 64 * _MIB
_FORBIDDEN_TARGETS = ("/", "/usr", "/proc", "/sys", "/dev", "/etc", "/run", "/tmp", "/bin", "/lib", "/lib64", "/sbin")  # noqa: S108


Stage = tuple[str, list[str], list[str]]
"""Where a zygote stages the host's folders (an empty one), those folders, and what is hidden in them."""


class Interpreter(NamedTuple):
    """`path` is valid inside; `bind` is what must be bound at its own path for that, empty below /usr."""

    path: str
    bind: str


def find_interpreter(runtime: Runtime) -> Interpreter | None:
    """The first candidate that this host has; None when it has none. A runtime without candidates needs none."""
    for name in runtime.interpreter:
        path = name if name.startswith("/") else _search(name)
        if not path or not os.access(path, os.X_OK):
            continue
        if path.startswith("/usr/"):
            return Interpreter(path, "")
        real = Path(path).resolve()
        if real.is_relative_to("/usr"):
            return Interpreter(str(real), "")
        return Interpreter(str(real), _prefix(real))
    return None


def _search(name: str) -> str:
    for folder in _PATH.split(":"):
        if os.access(f"{folder}/{name}", os.X_OK):
            return f"{folder}/{name}"
    if name.startswith("python"):
        # The command of that name may be a version manager's script; our own prefix holds a real interpreter.
        own = Path(sys.base_prefix) / "bin" / name
        return str(own) if own.exists() else ""
    return shutil.which(name) or ""


def _prefix(real: Path) -> str:
    """The installation around an interpreter (its libraries), but never somebody's home or a top folder."""
    prefix = real.parent.parent
    if real.parent.name != "bin" or len(prefix.parts) < 3 or prefix == Path.home() or prefix.parent == Path("/home"):
        return str(real)
    return str(prefix)


class Host(NamedTuple):
    """Who the instance is on the host, and whether control groups limit it."""

    uid: int
    gid: int
    rootless: bool
    hard: bool


class Resolver:
    """Makes specs. All lookups are of this host's disk and fast."""

    def __init__(
        self,
        runtimes: Mapping[str, Runtime],
        runtime_folder: Callable[[str], Path],
        trees: Trees,
        skeleton: Skeleton,
        settings: ProcessSettings,
    ) -> None:
        self._runtimes = runtimes
        self._folder = runtime_folder
        self._trees = trees
        self._skeleton = skeleton
        self._settings = settings
        self._found: dict[str, Interpreter] = {}
        self.masks: list[str] = []
        self.proc_masks: list[str] = []

    def family(self, request: LaunchRequest) -> str:
        """A task runs more than the interpreter: compilers, installers, whatever they start."""
        runtime = self._runtimes.get(request.containers[0].runtime)
        return runtime.syscalls if runtime is not None and request.kind == "serve" else "wide"

    def container(self, request: LaunchRequest) -> Container:
        """The one container of the request; InvalidInput."""
        if len(request.containers) != 1:
            raise InvalidInput(
                f"the process sandbox runs one container in an instance, not {len(request.containers)}",
                hint="choose a sandbox that has side-cars",
            )
        container = request.containers[0]
        if container.image:
            raise InvalidInput("the process sandbox runs no images", hint="name a runtime instead of an image")
        if not container.command:
            raise InvalidInput(
                "there is no start command", hint="give the function a command", details={"field": "command"}
            )
        return container

    def spec(self, request: LaunchRequest, host: Host, resolvers: tuple[str, ...]) -> Spec:
        """InvalidInput when the runtime, its interpreter, a tree or a path is not there or not allowed."""
        container = self.container(request)
        mounts, interpreter = self._runtime_mounts(container)
        mounts += [self._volume(volume, request.kind) for volume in container.volumes]
        env = {"PATH": _PATH, "HOME": "/tmp", "LANG": "C.UTF-8", **container.env}  # noqa: S108
        if request.protocol == "frames" and request.kind == "serve":
            env.setdefault("SEPTET_LINK_FD", "3")
        elif request.kind == "serve":
            env.setdefault("PORT", str(request.port))
        return Spec(
            id=request.id,
            walls=True,
            rootless=host.rootless,
            uid=host.uid,
            gid=host.gid,
            command=resolve_command(container.command, interpreter.path if interpreter else "", RUNTIME_TARGET),
            env=env,
            working_directory=container.working_directory,
            files=self.files_of(request, container, resolvers),
            root=str(self._skeleton.root),
            empty=str(self._skeleton.empty),
            point=str(self._skeleton.point),
            mounts=mounts,
            masks=self.masks,
            proc_masks=self.proc_masks,
            tmp_bytes=container.limits.tmp * _MIB,
            shm_bytes=min(container.limits.memory * _MIB, _SHM_MAX),
            rlimits=self.rlimits(container.limits, host.hard),
            port=request.port,
            gateway=request.gateway,
            wait=request.network.mode == "egress",
            link=request.kind == "serve" and request.protocol == "frames",
        )

    def generic(self, runtime: str, id: str, host: Host) -> Spec:
        """What every instance of the runtime has; InvalidInput when that has no interpreter."""
        mounts, _ = self._runtime_mounts(Container(runtime=runtime))
        return Spec(
            id=id,
            walls=True,
            rootless=host.rootless,
            uid=host.uid,
            gid=host.gid,
            command=[],
            env={},
            working_directory="",
            files={},
            root=str(self._skeleton.root),
            empty=str(self._skeleton.empty),
            point=str(self._skeleton.point),
            mounts=mounts,
            masks=self.masks,
            proc_masks=self.proc_masks,
            pooled=True,
        )

    def stage(self, runtime: str) -> Stage | None:
        """As `generic`, what of it a zygote can bind ahead; an ordinary user's has nowhere to do that."""
        if os.geteuid():
            return None
        mounts, _ = self._runtime_mounts(Container(runtime=runtime))
        return str(self._skeleton.stage), [item.source for item in mounts if not item.hidden], self.masks

    def parked(self, runtime: str, id: str, host: Host, gateway: int) -> Spec:
        """An instance of the runtime with its interpreter started; InvalidInput when that is not there."""
        container = Container(runtime=runtime, command=self._runtimes[runtime].command)
        _, interpreter = self._runtime_mounts(container)
        return replace(
            self.generic(runtime, id, host),
            command=resolve_command(container.command, interpreter.path if interpreter else "", RUNTIME_TARGET),
            env={"PATH": _PATH, "HOME": "/tmp", "LANG": "C.UTF-8", VARIABLE: str(PARK)},  # noqa: S108
            # What a function has that asks for nothing else, so that nothing has to be changed then.
            tmp_bytes=container.limits.tmp * _MIB,
            shm_bytes=min(container.limits.memory * _MIB, _SHM_MAX),
            rlimits=self.rlimits(container.limits, host.hard),
            gateway=gateway,
            pooled=False,
            parked=True,
            trees=str(self._trees.folder()),
        )

    def kept(self, runtime: str, id: str, groups: list[str], gateway: int) -> Spec:
        """The first process of a namespace set, for instances of the runtime; InvalidInput as `generic`."""
        generic = self.generic(runtime, id, Host(0, 0, False, True))
        trees = str(self._trees.folder())
        return replace(generic, pooled=False, keeps=True, trees=trees, groups=groups, gateway=gateway)

    def rlimits(self, limits: Limits, hard: bool) -> dict[str, int]:
        found = {
            "RLIMIT_CORE": 0,
            "RLIMIT_NOFILE": self._settings.open_files,
            "RLIMIT_MSGQUEUE": 0,
            "RLIMIT_MEMLOCK": 64 * 1024,
        }
        if not hard:
            # It counts threads of all processes with this uid in the instance's user namespace.
            found["RLIMIT_NPROC"] = limits.pids + 1
        return found

    def interpreter(self, container: Container) -> Interpreter | None:
        """InvalidInput for an unknown runtime or a missing interpreter."""
        if not container.runtime:
            return None
        runtime = self._runtimes.get(container.runtime)
        if runtime is None:
            known = ", ".join(sorted(self._runtimes))
            raise InvalidInput(f"there is no runtime {container.runtime!r}", hint=f"choose one of: {known}")
        found = self._found.get(runtime.name)
        if found is None or not os.access(found.path, os.X_OK):
            found = find_interpreter(runtime)
        if found is not None:
            self._found[runtime.name] = found
        if found is None and runtime.interpreter:
            raise InvalidInput(
                f"this host has no interpreter for runtime {runtime.name!r}: none of {', '.join(runtime.interpreter)}",
                hint=runtime.install_hint,
            )
        return found

    def _runtime_mounts(self, container: Container) -> tuple[list[Mount], Interpreter | None]:
        interpreter = self.interpreter(container)
        mounts = [Mount(folder, folder) for folder in self._skeleton.host_folders()]
        if not container.runtime:
            return mounts, None
        mounts.append(Mount(str(self._folder(container.runtime)), RUNTIME_TARGET, hidden=True))
        extra = [interpreter.bind] if interpreter and interpreter.bind else []
        extra += [path for path in self._runtimes[container.runtime].paths if os.path.exists(path)]  # noqa: PTH110
        for path in extra:
            if not path.startswith("/usr/"):
                self._skeleton.mount_point(path, os.path.isdir(path))  # noqa: PTH112
                mounts.append(Mount(path, path))
        return mounts, interpreter

    def _volume(self, volume: Volume, kind: str) -> Mount:
        target = volume.target
        if volume.writable and kind != "task":
            raise InvalidInput("only a task may write into a tree", details={"field": "volumes"})
        if not target.startswith("/") or posixpath.normpath(target) != target or target in _FORBIDDEN_TARGETS:
            raise InvalidInput(f"a volume cannot be mounted at {target!r}", details={"field": "volumes"})
        if target.startswith(("/usr/", "/proc/", "/sys/", "/dev/", "/etc/", "/run/")):
            raise InvalidInput(f"a volume cannot be mounted below {target!r}", details={"field": "volumes"})
        source = self.tree(volume)
        self._skeleton.mount_point(target)
        return Mount(str(source), target, writable=volume.writable, hidden=not volume.writable)

    def tree(self, volume: Volume) -> Path:
        """Where the volume's tree stands on this host; InvalidInput."""
        try:
            return self._trees.working(volume.tree) if volume.writable else self._trees.path(volume.tree)
        except NotFound as error:
            raise InvalidInput(f"there is no tree {volume.tree!r}", hint="build the revision again") from error

    def files_of(
        self, request: LaunchRequest, container: Container, resolvers: tuple[str, ...] = ()
    ) -> dict[str, bytes]:
        """What is to lie below /run; InvalidInput for a file elsewhere."""
        for name in container.files:
            if posixpath.normpath(name) != name or not name.startswith("/run/"):
                raise InvalidInput(f"a private file must lie below /run, not at {name!r}", details={"field": "files"})
        files = dict(container.files)
        if request.network.mode == "egress":
            files.setdefault(RESOLVER, "".join(f"nameserver {server}\n" for server in resolvers).encode())
            if request.kind == "task":
                for source, target in TASK_FILES.items():
                    if data := _read(source):
                        files.setdefault(target, data)
        return files


def resolve_command(command: tuple[str, ...], interpreter: str, runtime: str) -> list[str]:
    """`{interpreter}` and `{runtime}` replaced by paths."""
    return [word.replace("{interpreter}", interpreter).replace("{runtime}", runtime) for word in command]


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
