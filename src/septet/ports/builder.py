"""Source to artifact, for the deployer."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from septet.model.function import FunctionTemplate
from septet.ports.blobs import Progress


class Artifact(NamedTuple):
    """`tree` is a frozen tree with `code/` and, after a build with dependencies, `deps/`; `log` a blob digest."""

    tree: str
    log: str


class Builder(Protocol):
    async def build(
        self, namespace: str, name: str, template: FunctionTemplate, secrets: dict[str, str], progress: Progress
    ) -> Artifact:
        """Makes the artifact of a revision; the same source and build settings give the same tree, from cache.

        `secrets` are the build's secret environment variables in the clear. `progress` gets each line of output.
        Raises BuildFailed (with the end of the log), InvalidInput (a bad archive), Unavailable. Nothing stays
        behind after a failure. May be cancelled and repeated.
        """
        ...
