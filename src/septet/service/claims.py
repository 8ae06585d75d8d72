"""Which namespace may name which uploaded bytes.

Blobs are kept once for all namespaces, so a digest alone must not open what somebody else uploaded: a namespace
may name what it uploaded itself, or what its own functions and revisions name already. Uploads are remembered in
memory: after a restart between an upload and its deploy the client is told to upload again, which costs it one
request, since the bytes are there.
"""

from __future__ import annotations

from collections import OrderedDict

from septet.model.function import Function, Revision
from septet.ports.store import Store

REMEMBERED = 100_000


class Claims:
    """The uploads of this process's life, the newest `REMEMBERED` of them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._uploads: OrderedDict[tuple[str, str], tuple[str, ...]] = OrderedDict()

    def add(self, namespace: str, digest: str, account: tuple[str, ...] = ()) -> None:
        """`account` is the uploading token and those that it came from."""
        self._uploads[namespace, digest] = account
        self._uploads.move_to_end((namespace, digest))
        while len(self._uploads) > REMEMBERED:
            self._uploads.popitem(last=False)

    async def holds(self, namespace: str, digest: str) -> bool:
        return (namespace, digest) in self._uploads or digest in await self.used(namespace)

    def uploads(self, namespace: str) -> set[str]:
        return {digest for owner, digest in self._uploads if owner == namespace}

    def uploaded_by(self, token: str) -> set[str]:
        """What a token, or one that it made, uploaded last."""
        return {digest for (_, digest), account in self._uploads.items() if token in account}

    def forget(self, namespace: str) -> None:
        """The namespace is gone; one of the same name starts without its uploads."""
        for key in [key for key in self._uploads if key[0] == namespace]:
            del self._uploads[key]

    async def used(self, namespace: str) -> set[str]:
        """Sources that the namespace's functions and revisions name."""
        found: set[str] = set()
        for kind in ("Function", "Revision"):
            for obj in (await self._store.page(kind, namespace)).items:
                if isinstance(obj, Function | Revision) and obj.spec.template.source:
                    found.add(obj.spec.template.source)
        return found
