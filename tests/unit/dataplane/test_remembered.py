"""What a hot connection remembers never changes an answer: remembered equals made anew, and a change shows at once."""

from __future__ import annotations

import contextlib
import random

from septet.dataplane.dispatch import CallTarget, ListenerFacts, Peer
from septet.dataplane.forwarding import ClientLines, Forwarded, client_lines, forwarded_lines, function_lines
from septet.dataplane.router import Router
from septet.dataplane.table import Table
from septet.model.access import ANONYMOUS
from septet.model.errors import BadReply
from septet.model.function import (
    Function,
    FunctionSpec,
    FunctionStatus,
    FunctionTemplate,
    Revision,
    RevisionSpec,
    RevisionStatus,
    TrafficTarget,
)
from septet.model.meta import Meta
from septet.ports.store import Change
from septet.wire.callroute import CallRoute
from septet.wire.fields import FieldsCache, lines_are_valid, parse_request_fields
from septet.wire.http1 import ReplyHeadsCache, parse_reply_head, parse_request_head
from septet.wire.problem import render_problem

NATIVE = CallRoute(api="native", prefix=b"/fn/", render_error=render_problem)
DROPPING = NATIVE._replace(drop=frozenset({b"x-a"}))
LINES = (
    b"X-A: 1\r\n",
    b"x-a: 2\r\n",
    b"Authorization: Bearer sept_x\r\n",
    b"Connection: x-a\r\n",
    b"X-Forwarded-For: 192.0.2.7\r\n",
    b"Date: \r\n",
    b"traceparent: 00-1\r\n",
    b"Content-Length: 3\r\n",
    b"broken\r\n",
)


def _block(rng: random.Random) -> bytes:
    return b"".join(rng.choices(LINES[:-1] if rng.random() < 0.9 else LINES, k=rng.randrange(5)))


def _target(rng: random.Random) -> CallTarget:
    cut = frozenset({b"authorization"}) if rng.random() < 0.5 else frozenset()
    route = rng.choice((NATIVE, DROPPING))
    return CallTarget("default", "f", ("default", "f-1"), b"/", route, 1.0, 1, ANONYMOUS, cut)


def test_forwarded_lines_are_those_of_the_request() -> None:
    rng = random.Random(1)
    parse = FieldsCache(parse_request_fields, entries=8)
    last: Forwarded | None = None
    peer = Peer(ListenerFacts(trusted=("127.0.0.0/8",)), "127.0.0.1", 1, True)
    again = 0
    for _ in range(2000):
        start = rng.choice((b"GET / HTTP/1.1\r\n", b"GET http://other/ HTTP/1.1\r\n"))
        head_text = start + b"Host: %b\r\n" % rng.choice((b"a", b"b")) + rng.choice(LINES[:5])
        head, target = parse_request_head(head_text, parse), _target(rng)
        lines, remembered = forwarded_lines(last, head, target, peer)
        again += remembered is last and last is not None
        last = remembered
        assert lines == function_lines(parse_request_head(head_text), target, peer)
    assert again > 5


def test_reply_lines_are_those_of_the_reply() -> None:
    rng = random.Random(2)
    known = ClientLines()
    for _ in range(2000):
        block = _block(rng)
        found = known(block)
        if not lines_are_valid(block):
            assert found is None
            continue
        assert found is not None
        assert found[0] + (b"" if found[1] else b"Date: now\r\n") == client_lines(block, b"Date: now\r\n")


def test_reply_heads_mean_the_same_each_time() -> None:
    rng = random.Random(3)
    known = ReplyHeadsCache(entries=16)
    for _ in range(2000):
        head = b"HTTP/1.1 %d \r\n%b" % (rng.choice((200, 204, 304, 404)), _block(rng))
        method = rng.choice((b"GET", b"HEAD"))
        results = []
        for parse in (known, parse_reply_head):
            facts = None
            with contextlib.suppress(BadReply):
                facts = parse(head, method)
            results.append(facts and (facts.status, facts.lines, facts.length, facts.declared, facts.keep_alive))
        assert results[0] == results[1]


def _revision(name: str) -> Revision:
    spec = RevisionSpec(function="f", function_uid="u", number=1, template=FunctionTemplate(runtime="python"))
    return Revision(meta=Meta(name=name, namespace="default"), spec=spec, status=RevisionStatus(phase="ready"))


def _function(*traffic: tuple[str, int]) -> Function:
    targets = tuple(TrafficTarget(percent=percent, revision=name) for name, percent in traffic)
    spec = FunctionSpec(template=FunctionTemplate(runtime="python"))
    return Function(
        meta=Meta(name="f", namespace="default", uid="u"), spec=spec, status=FunctionStatus(traffic=targets)
    )


def test_a_call_after_a_change_goes_to_the_new_revision() -> None:
    table = Table({})
    rng = random.Random(4)
    router = Router(table, rng.random)
    for name in ("f-1", "f-2"):
        table.apply(Change(1, "put", "Revision", _revision(name)))

    def chosen() -> str:
        return router.named(NATIVE, b"/fn/default/f/path").revision.key[1]

    table.apply(Change(2, "put", "Function", _function(("f-1", 100))))
    assert [chosen() for _ in range(3)] == ["f-1"] * 3
    table.apply(Change(3, "put", "Function", _function(("f-2", 100))))
    assert [chosen() for _ in range(3)] == ["f-2"] * 3
    table.apply(Change(4, "put", "Function", _function(("f-1", 50), ("f-2", 50))))
    assert {chosen() for _ in range(50)} == {"f-1", "f-2"}
