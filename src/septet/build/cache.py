"""Which tree a build made, by the build's key. Losing an entry costs a rebuild, nothing else."""

from __future__ import annotations

import os
from pathlib import Path

from septet.model.errors import NotFound
from septet.ports.blobs import Trees
from septet.ports.builder import Artifact


class BuildCache:
    """One small file per key: the tree's digest and the log's."""

    def __init__(self, folder: Path, trees: Trees) -> None:
        self._folder = folder
        self._trees = trees
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def get(self, key: str) -> Artifact | None:
        """What this build made, if its tree is still there."""
        try:
            tree, log = (self._folder / key).read_text().split()
            self._trees.path(tree)
        except (FileNotFoundError, ValueError, NotFound):
            return None
        return Artifact(tree, log)

    def put(self, key: str, artifact: Artifact) -> None:
        path = self._folder / key
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.write_text(f"{artifact.tree} {artifact.log}\n")
        fresh.replace(path)

    def trees(self) -> set[str]:
        """Every tree that an entry names."""
        found = set()
        for path in self._folder.iterdir():
            words = path.read_text().split()
            if len(words) == 2:
                found.add(words[0])
        return found
