"""Level "none": the same start without walls, with the inside's paths replaced by the host's.

Ports are the host's too, so every instance gets free ones instead of those it asked for; variables that name
the asked ones are changed with them.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from septet.drivers.sandbox.process.resolve import RUNTIME_TARGET, Resolver, resolve_command
from septet.drivers.sandbox.process.spec import Spec
from septet.ports.sandbox import Container, LaunchRequest


class PlainResolver:
    def __init__(self, resolver: Resolver, runtime_folder: Callable[[str], Path], folder: Path) -> None:
        self._resolver = resolver
        self._runtime_folder = runtime_folder
        self._folder = folder

    def clear(self) -> None:
        """Removes what an earlier life left."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def forget(self, instance: str) -> None:
        shutil.rmtree(self._folder / instance, ignore_errors=True)

    def spec(self, request: LaunchRequest) -> Spec:
        """As `Resolver.spec`; writes the private files below the state directory."""
        container = self._resolver.container(request)
        interpreter = self._resolver.interpreter(container)
        own = self._folder / request.id
        places = self._places(container, own)
        paths = self._resolver.files_of(request, container)
        port, gateway = _free_port(request.port), _free_port(request.gateway)
        (own / "tmp").mkdir(parents=True, mode=0o700)
        for name, data in paths.items():
            target = own / name.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            target.write_bytes(data)
        env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/tmp", "LANG": "C.UTF-8", **container.env}  # noqa: S108
        if request.kind == "serve" and request.protocol != "frames":
            env["PORT"] = str(port)
        elif request.kind == "serve":
            env.setdefault("SEPTET_LINK_FD", "3")
        if gateway:
            env = {
                key: value.replace(f"127.0.0.1:{request.gateway}", f"127.0.0.1:{gateway}") for key, value in env.items()
            }
        runtime = str(self._runtime_folder(container.runtime)) if container.runtime else ""
        # Translated before the host's own paths come in: one of those may itself begin like an inside path (/tmp).
        inside = tuple(_translate(word, places) for word in container.command)
        command = resolve_command(inside, interpreter.path if interpreter else "", runtime)
        return Spec(
            id=request.id,
            walls=False,
            rootless=True,
            uid=os.getuid(),
            gid=os.getgid(),
            command=list(command),
            env={key: _translate(value, places) for key, value in env.items()},
            working_directory=_translate(container.working_directory, places) or str(own / "tmp"),
            files={},
            rlimits=self._resolver.rlimits(container.limits, True),
            port=port,
            gateway=gateway,
            link=request.kind == "serve" and request.protocol == "frames",
        )

    def _places(self, container: Container, own: Path) -> dict[str, str]:
        places = {"/run": str(own / "run"), "/tmp": str(own / "tmp")}  # noqa: S108
        places |= {volume.target: str(self._resolver.tree(volume)) for volume in container.volumes}
        if container.runtime:
            places[RUNTIME_TARGET] = str(self._runtime_folder(container.runtime))
        return places


def _translate(text: str, places: dict[str, str]) -> str:
    """Inside paths at the start of a word, or after a sign that separates paths, become the host's."""
    wanted = "|".join(re.escape(inside) for inside in sorted(places, key=len, reverse=True))
    return re.sub(rf"(?<![^=:, ])({wanted})(?=$|[/:, ])", lambda found: places[found[1]], text)


def _free_port(wanted: int) -> int:
    if not wanted:
        return 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
