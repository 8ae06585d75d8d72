"""The first code of a zygote. It arrives as one script, modules included, so that nothing of the host's own folders
is open to it or shows in a trace, and any version of the function's interpreter can run it.

`bundle.py` puts the modules in front and the call of `main` behind. The script is found at a name that is as long
as the one that a function's process has in its place, so that its command line can be made to say just that.
"""

from __future__ import annotations

import ctypes
import os
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from types import CodeType
from typing import Any

SCRIPT = 4
_ARGUMENTS_END, _ENVIRONMENT_START, _ENVIRONMENT_END = 46, 47, 48
"""Addresses in /proc/self/stat, by their place after the command's name (proc_pid_stat(5))."""


class _Carried(SourceFileLoader):
    source = ""

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, self.path, "exec", dont_inherit=True)


class _Bundle:
    """Finds modules in a table: name -> (path that it shows, source, whether it is a package)."""

    def __init__(self, modules: dict[str, tuple[str, str, bool]]) -> None:
        self._modules = modules

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name not in self._modules:
            return None
        place, source, package = self._modules[name]
        loader = _Carried(name, place)
        loader.source = source
        folder = [place.rpartition("/")[0]] if package else None
        return spec_from_file_location(name, place, loader=loader, submodule_search_locations=folder)


def main(modules: dict[str, tuple[str, str, bool]], shown: str, family: str, stage: Any = None) -> None:
    """Serves the platform; goes on past `serve` only in the process of a function, whose frames end here."""
    os.close(SCRIPT)
    os.chdir("/")
    fields = _stat()
    _show(shown, fields[_ARGUMENTS_END])
    bundle: Any = _Bundle(modules)
    sys.meta_path.insert(0, bundle)
    launcher: Any = __import__("septet.drivers.sandbox.process.launcher", fromlist=["main"])
    zygote: Any = __import__("septet_zygote")
    zygote.preload(shown, modules.pop("septet_start", ("", "", False))[1])
    sys.meta_path.remove(bundle)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("septet", "septet_zygote")]:
        del sys.modules[name]
    function = launcher.serve(family, stage)
    if function is not None:
        start, end = fields[_ENVIRONMENT_START], fields[_ENVIRONMENT_END]
        zygote.run(function.command, function.env, lambda env: _show_environment(env, start, end))


def _stat() -> list[int]:
    with open("/proc/self/stat") as file:
        _, *fields = file.read().rpartition(")")[2].split()
    return [0, *map(int, fields)]


def _show_environment(env: dict[str, str], start: int, end: int) -> None:
    """Makes /proc/self/environ say what it would after an exec, as far as there is room; the rest is zero bytes."""
    data = b""
    for name, value in env.items():
        entry = os.fsencode(f"{name}={value}") + b"\0"
        if len(data) + len(entry) <= end - start:
            data += entry
    ctypes.memmove(start, data.ljust(end - start, b"\0"), end - start)


def _show(script: str, end: int) -> None:
    """Makes /proc/self/cmdline end in `script` instead of the name of the same length that it was started by."""
    ours, theirs = os.fsencode(sys.argv[0]), os.fsencode(script)
    with open("/proc/self/cmdline", "rb") as file:
        if len(ours) != len(theirs) or not file.read().endswith(ours + b"\0"):
            raise SystemExit("the command line is not as it was given")
    ctypes.memmove(end - len(ours) - 1, theirs, len(theirs))
    sys.argv[0] = script
