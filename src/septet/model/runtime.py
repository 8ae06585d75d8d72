"""A built-in runtime, as its folder's `runtime.toml` describes it."""

from __future__ import annotations

import msgspec

from septet.model.instance import Protocol


class RuntimeBuild(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way to install dependencies: when `when` (a file name in the source) exists, run `command` in the
    build sandbox; "*" applies to every source, after the one whose file is there. `{code}`, `{deps}`,
    `{runtime}` and `{interpreter}` are replaced by paths inside it. An `offline` build gets no network. `cache` is
    the variable that tells the build's tool where its cache is: a folder that all builds of a namespace share, one at
    a time. `memory` is in MiB; 0 means as much as any build may use."""

    when: str
    offline: bool = False
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    cache: str = ""
    memory: int = 0


class Runtime(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is needed to run functions of one language.

    `interpreter` lists candidates, absolute paths first; the first that exists on the host is bound into the
    sandbox at its own path. `command` starts an instance, with `{interpreter}`, `{runtime}`, `{code}` and
    `{handler}` replaced. `start_from_spec` means the function's own `command` is the start command.
    `syscalls` names the seccomp family, `concurrency` the default per instance (-1: no limit).
    With `parks` the command can be started before its function is known, and told later (docs/add-a-runtime.md).
    `extensions` maps single source files to this runtime.
    """

    name: str
    title: str = ""
    protocol: Protocol = "frames"
    interpreter: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    start_from_spec: bool = False
    handler: str = ""
    concurrency: int = 1
    syscalls: str = "wide"
    memory: int = 128
    extensions: tuple[str, ...] = ()
    parks: bool = False
    env: dict[str, str] = {}
    builds: tuple[RuntimeBuild, ...] = ()
    paths: tuple[str, ...] = ()
    install_hint: str = ""

    @property
    def keeps_cache(self) -> bool:
        """Whether a build of it leaves something for the next one."""
        return any(build.cache for build in self.builds)
