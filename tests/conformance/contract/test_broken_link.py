"""Links that break one clause each: the check of that clause must fail on them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import contract_clauses
import pytest
from contract_beds import SYNC, Bed
from contract_clauses import CLAUSES
from contract_processes import Instance, Recorder

from septet.model.errors import QueueFull, SeptetError
from septet.model.function import Readiness
from septet.model.instance import InstanceInfo
from septet.ports.contract import Connect, Link, Reply, ReplyHead, RequestHead, ShortCall, ShortLink, Upload


class Through:
    """A reply that passes everything on, but what a subclass breaks."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def started(self) -> None:
        self._reply.started()

    def informational(self, status: int, lines: bytes) -> None:
        self._reply.informational(status, lines)

    def head(self, head: ReplyHead) -> None:
        self._reply.head(head)

    def data(self, chunk: bytes) -> None:
        self._reply.data(chunk)

    def end(self) -> None:
        self._reply.end()

    def failed(self, error: SeptetError) -> None:
        self._reply.failed(error)

    def pause_upload(self) -> None:
        self._reply.pause_upload()

    def resume_upload(self) -> None:
        self._reply.resume_upload()


class NeverHolds(Through):
    def pause_upload(self) -> None:
        pass

    def resume_upload(self) -> None:
        pass


class NeverFails(Through):
    def failed(self, error: SeptetError) -> None:
        pass


class OneWay:
    """An upload whose control does nothing."""

    def __init__(self, upload: Upload, pauses: bool, cancels: bool) -> None:
        self._upload = upload
        self._pauses = pauses
        self._cancels = cancels

    def write(self, chunk: bytes) -> None:
        self._upload.write(chunk)

    def end(self) -> None:
        self._upload.end()

    def cancel(self, on_gone: Callable[[], None]) -> None:
        if self._cancels:
            self._upload.cancel(on_gone)
        else:
            on_gone()

    def pause(self) -> None:
        if self._pauses:
            self._upload.pause()

    def resume(self) -> None:
        if self._pauses:
            self._upload.resume()


class BrokenLink:
    def __init__(self, link: Link, clause: str) -> None:
        self.instance: InstanceInfo = link.instance
        self._link = link
        self._clause = clause
        self._open = 0

    def begin(self, head: RequestHead, reply: Reply) -> Upload:
        self._open += 1
        if self._clause == "contract.4" and self._open > 1:
            raise QueueFull("more than one call at a time")
        if self._clause == "contract.1":
            reply = NeverHolds(reply)
        if self._clause == "contract.5":
            reply = NeverFails(reply)
        upload = self._link.begin(head, reply)
        return OneWay(upload, self._clause != "contract.3", self._clause != "contract.2")

    def ask(self, head: bytes, body: bytes, call: ShortCall) -> int:
        assert isinstance(self._link, ShortLink)
        if self._clause == "contract.7":
            return 1
        return self._link.ask(head, body, Deaf(call) if self._clause == "contract.8" else call)

    def takes_ahead(self) -> bool:
        return isinstance(self._link, ShortLink) and self._link.takes_ahead()

    def recall(self) -> None:
        assert isinstance(self._link, ShortLink)
        if self._clause != "contract.9":
            self._link.recall()

    def unfold(self, number: int, head: RequestHead, reply: Reply) -> Upload:
        assert isinstance(self._link, ShortLink)
        return self._link.unfold(number, head, reply)

    async def close(self, grace: float) -> None:
        await self._link.close(grace)


class Deaf:
    """A short call that is never told of its reply."""

    def __init__(self, call: ShortCall) -> None:
        self._call = call
        self.running = False

    @property
    def invocation(self) -> str:
        return self._call.invocation

    def answered(self, head: bytes, body: bytes) -> bool:
        return True

    def unfold(self) -> None:
        self._call.unfold()

    def returned(self) -> None:
        self._call.returned()


class ImpatientInstance(Instance):
    """Opens its link without a second try."""

    async def open(self, connect: Connect, timeout: float = 5) -> Link:
        await connect(asyncio.Protocol)
        raise AssertionError("this connection leads nowhere")


class BrokenBed(Bed):
    def __init__(self, clause: str) -> None:
        super().__init__("broken", SYNC.runtime, SYNC.folder, broken=SYNC.broken, stops=False)
        self._clause = clause

    @contextlib.asynccontextmanager
    async def running(
        self, folder: Path, concurrency: int = 0, readiness: Readiness | None = None
    ) -> AsyncIterator[tuple[Instance, Link]]:
        async with super().running(folder, concurrency, readiness) as (instance, link):
            yield instance, BrokenLink(link, self._clause)

    async def start(
        self,
        folder: Path,
        files: dict[str, str] | None = None,
        concurrency: int = 0,
        env: dict[str, str] | None = None,
        readiness: Readiness | None = None,
    ) -> tuple[Instance, Connect]:
        instance, connect = await super().start(folder, files, concurrency, env, readiness)
        if self._clause == "contract.6":
            impatient = ImpatientInstance(instance.process, instance.contract, instance.template)
            return impatient, connect
        return instance, connect


@pytest.mark.parametrize("clause", CLAUSES)
async def test_a_link_that_breaks_the_clause_fails_its_check(
    clause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contract_clauses, "PATIENCE", 1.0)
    monkeypatch.setattr(Recorder.over, "__defaults__", (1.0,))
    with pytest.raises((AssertionError, TimeoutError, SeptetError)):
        await CLAUSES[clause](BrokenBed(clause), tmp_path)
