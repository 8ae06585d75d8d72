"""What has to be done to a source before it can run, and the name under which the result is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from septet.model.errors import InvalidInput
from septet.model.function import FunctionTemplate
from septet.model.runtime import Runtime, RuntimeBuild

CODE = "/function/code"
DEPS = "/function/deps"
RUNTIME = "/opt/septet/runtime"
CACHE = "/cache"
ALWAYS = "*"


class BuildPlan(NamedTuple):
    """The commands of a build, in order; none when the source runs as it is."""

    steps: tuple[RuntimeBuild, ...]


def plan(runtime: Runtime, template: FunctionTemplate, names: Iterable[str]) -> BuildPlan:
    """The first of the runtime's builds whose file is among the source's top-level `names`.

    A build whose `when` is "*" applies to every source, and runs after the one that was found.
    """
    if template.build.skip:
        return BuildPlan(())
    present = set(names)
    found = [build for build in runtime.builds if build.when in present][:1]
    always = [build for build in runtime.builds if build.when == ALWAYS]
    return BuildPlan(tuple(found + always))


def resolve(command: Iterable[str]) -> tuple[str, ...]:
    """The command with the paths inside the build sandbox; the driver fills in the interpreter and the runtime."""
    return tuple(word.replace("{code}", CODE).replace("{deps}", DEPS) for word in command)


def cache_key(runtime: Runtime, template: FunctionTemplate, secrets: Mapping[str, str], salt: Mapping[str, str]) -> str:
    """Equal exactly when the same source would be built in the same way.

    Secret values count by their digest only; memory decides whether a build ends, not what it makes. `salt` holds what
    else decides the result: the versions of the interpreter and of the tools.
    """
    if not template.source:
        raise InvalidInput("the function has no source", hint="upload an archive, or name an image")
    hidden = {key: hashlib.sha256(value.encode()).hexdigest() for key, value in sorted(secrets.items())}
    facts = msgspec.json.encode(
        {
            "source": template.source,
            "runtime": runtime.name,
            "builds": runtime.builds,
            "build": msgspec.structs.replace(template.build, memory=0),
            "secrets": hidden,
            "salt": dict(sorted(salt.items())),
        },
        order="sorted",
    )
    return hashlib.sha256(facts).hexdigest()
