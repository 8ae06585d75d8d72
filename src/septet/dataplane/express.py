"""The express lane: what a client asked before, byte for byte, costs no second look.

A request whose whole head was seen before on this listener has the same function, caller, lines and limits, until
anything in the routing table or any token changes. All of that is a `Lane`, made once; such a call is
one `ExpressCall` that fills a few values into ready bytes. Whatever is out of the ordinary (no free instance, a
reply in pieces, a client that goes away, a deadline) turns it into an `Exchange`, which knows everything.
"""

from __future__ import annotations

from bisect import bisect_left
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from septet.dataplane.dispatch import CallTarget
from septet.dataplane.exchange import Exchange
from septet.dataplane.metrics import BUCKETS
from septet.model.errors import InstanceLost, SeptetError
from septet.ports.contract import RequestHead
from septet.wire.http1 import ReplyHeadFacts, RequestHeadFacts, parse_reply_head, status_line

if TYPE_CHECKING:
    from septet.dataplane.calls import Calls
    from septet.dataplane.front import Front
    from septet.dataplane.metrics import Series
    from septet.dataplane.pool import QueueBounds, RevisionPool, Slot
    from septet.dataplane.table import Table
    from septet.ports.logs import Logs

SIZE = 2048
"""The longest head that is remembered, of a request and of a reply."""
REPLIES = 64
CALLER = "\0caller"
"""Stands for the caller's address in the lines of a lane, which callers from everywhere share."""
BODY = 64 * 1024
OVERHEAD = 1024
"""Bytes that the objects around a remembered block take, about."""
LOOK = 0.1
"""Seconds between two failures of an instance that take the usual way, where its limits are looked at."""
PER_CALL = frozenset({b"x-request-id", b"traceparent", b"tracestate"})
"""Lines that mean one call: with them a head does not come twice."""
Lanes = dict[bytes, "Lane"]


class Whole(NamedTuple):
    """A reply that came in one piece before, made into an answer: `template` takes the Date line, the request's id,
    the invocation's, the trace's, the span, and the id `more` times again. `counts` and `total` are the metrics of
    its status."""

    template: bytes
    status: int
    length: int
    dated: bool
    more: int
    counts: list[int]
    total: list[float]


class Lane:
    """All that calls with the very same head share."""

    __slots__ = (
        "body",
        "bounds",
        "calls",
        "expires",
        "generation",
        "head",
        "key",
        "logs",
        "pool",
        "record",
        "replies",
        "series",
        "table",
        "target",
        "template",
        "timeout",
    )

    def __init__(
        self,
        calls: Calls,
        head: RequestHeadFacts,
        target: CallTarget,
        *,
        bounds: QueueBounds,
        table: Table,
        lines: bytes,
        pool: RevisionPool,
        series: Series,
        logs: Logs,
    ) -> None:
        self.calls = calls
        self.bounds = bounds
        self.table = table
        self.generation = table.generation
        self.head = head
        self.target = target
        self.pool = pool
        self.series = series
        self.logs = logs
        self.timeout = target.timeout
        self.expires = target.caller.expires_at or float("inf")
        self.body = head.length or 0
        self.key = (target.namespace, target.function)
        self.template = _request_template(head, target, lines)
        self.record = _record_template(head, target)
        self.replies: dict[bytes, Whole | None] = {}

    def begin(self, front: Front, body: bytes) -> bool:
        """Sends the call to an instance, or lets it wait for one of those that are there; False, and nothing
        happened, when it must go the usual way."""
        now = monotonic()
        desk = front.desk
        wall = desk.wall(now)
        pool = self.pool
        if self.generation != self.table.generation or wall >= self.expires or not pool.slots:
            return False
        invocation, span = desk.ids.pair()
        call = ExpressCall(front, self, invocation, span, now, body)
        self.calls.open += 1
        front.busy(call)
        slot = pool.take(now)
        if slot is None:
            pool.queue(call, self.bounds, now)
        else:
            call.enter(slot, now)
        return True

    @property
    def weight(self) -> int:
        """Bytes that it keeps, about."""
        return len(self.template) + len(self.record) + SIZE + OVERHEAD

    def whole(self, head: bytes, front: Front) -> Whole | None:
        """What this reply head becomes for the client; None for one that goes the usual way."""
        found = self.replies.get(head)
        if found is None and head not in self.replies:
            if len(self.replies) >= REPLIES:
                # What they weigh stays counted: at worst all lanes are forgotten a little early.
                self.replies.clear()
            found = _whole(self, head, front) if len(head) <= SIZE else None
            self.replies[head] = found
            front.desk.remember(len(head) + OVERHEAD + (len(found.template) if found else 0))
        return found


class ExpressCall:
    """One call on a lane (`ports.contract.ShortCall`, `pool.ShortWaiter`, and the receiver of its connection)."""

    __slots__ = (
        "_begun",
        "_body",
        "_front",
        "_lane",
        "_number",
        "_queued",
        "_slot",
        "_span",
        "deadline",
        "id",
        "running",
    )

    def __init__(self, front: Front, lane: Lane, invocation: bytes, span: bytes, now: float, body: bytes) -> None:
        self._front = front
        self._lane = lane
        self._slot: Slot | None = None
        self._span = span
        self._queued = now
        self._begun = 0.0
        self._body = body
        self._number = 0
        self.id = invocation
        self.deadline = inf
        self.running = False

    # -- pool.ShortWaiter

    def enter(self, slot: Slot, now: float = 0.0) -> None:
        lane, id = self._lane, self.id
        timeout = lane.timeout
        desk = self._front.desk
        self._begun = now = now or monotonic()
        self.deadline = now + timeout
        desk.deadlines.arm(self._front, self.deadline)
        head = lane.template % (self._front.host, id, id, self._span, id, (desk.wall(now) + timeout) * 1000)
        link = slot.short
        try:
            if link is None:
                raise InstanceLost("this link takes no short calls")
            self._number = link.ask(head, self._body, self)
        except InstanceLost as error:
            lane.pool.release(slot)
            self._exchange().failed(error)
            return
        self._slot = slot

    def fail(self, error: SeptetError) -> None:
        self._exchange().fail(error)

    # -- ports.contract.ShortCall

    @property
    def invocation(self) -> str:
        return self.id.decode()

    def answered(self, head: bytes, body: bytes) -> bool:
        front, lane, slot = self._front, self._lane, self._slot
        assert slot is not None
        found = lane.replies.get(head) or lane.whole(head, front)
        size = len(body)
        if found is None or size != found.length or not front.undisturbed:
            return False
        now = monotonic()
        if found.status >= 500 and now - slot.looked >= LOOK:
            # The usual way asks which limit the instance met.
            slot.looked = now
            return False
        id = self.id
        desk = front.desk
        date = b"" if found.dated else desk.date()
        fill = (date, id, id, id, self._span)
        data = found.template % ((*fill, *(id,) * found.more) if found.more else fill)
        front.answered(data + body, now)
        lane.pool.ran(slot, self._begun, now)
        lane.pool.release(slot, now)
        self._note(slot, now, found, size)
        front.proceed()
        return True

    def _note(self, slot: Slot, now: float, found: Whole, size: int) -> None:
        """What `Calls.finished` does for other calls."""
        lane = self._lane
        lane.calls.open -= 1
        queued, begun = self._queued, self._begun
        took = now - queued
        found.counts[bisect_left(BUCKETS, took)] += 1
        found.total[0] += took
        series = lane.series
        taken = len(self._body)
        series.bytes_in += taken
        series.bytes_out += size
        offset = self._front.desk.wall_offset
        came, ended = b"%.6f" % (queued + offset), b"%.6f" % (now + offset)
        id = self.id
        if queued == begun:
            fill = (id, slot.name, id, b"", found.status, came, came, ended, ended, b"0", now - begun, taken, size)
        else:
            cold = b""
            if slot.since > queued:
                cold = b"burst"
                series.cold["burst"] = series.cold.get("burst", 0) + 1
            began, wait = b"%.6f" % (begun + offset), b"%.6f" % (begun - queued)
            fill = (id, slot.name, id, cold, found.status, came, began, ended, ended, wait, now - begun, taken, size)
        lane.logs.record_encoded(lane.key, lane.record % fill)

    def unfold(self) -> None:
        self._exchange()

    def usual(self) -> Exchange:
        """This call the usual way, waiting in no queue, once it was taken out of the one it was in."""
        return self._exchange()

    def returned(self) -> None:
        slot, self._slot = self._slot, None
        assert slot is not None
        self.deadline = inf
        lane = self._lane
        lane.pool.release(slot)
        lane.pool.queue(self, lane.bounds, monotonic(), True)

    # -- the connection's receiver: whatever happens here is out of the ordinary

    def body(self, chunk: bytes) -> None:
        raise AssertionError("the body came whole")

    def body_end(self) -> None:
        raise AssertionError("the body came whole")

    def broken(self, error: SeptetError) -> None:
        self._exchange().broken(error)

    def client_gone(self) -> None:
        self._exchange().client_gone()

    def expired(self) -> None:
        self._exchange().expired()

    def pause_reply(self) -> None:
        """A reply that comes while the client takes nothing unfolds the call."""

    def resume_reply(self) -> None:
        pass

    def _exchange(self) -> Exchange:
        """The same call the usual way."""
        front, lane, slot = self._front, self._lane, self._slot
        head, target = lane.head, lane.calls.unshared(lane.target)
        exchange = Exchange(front, head, target)
        trace = b"00-%b-%b-00" % (self.id, self._span)
        exchange.take_over(self.id, trace, self._queued, self._queued + front.desk.wall_offset, self._body)
        front.unfold(exchange, head.method, len(self._body))
        if slot is None or slot.short is None:
            lane.pool.withdraw(self)
            return exchange
        request = RequestHead(head.method, target.path, b"", head.length, self.invocation, self.deadline)
        upload = slot.short.unfold(self._number, request, exchange)
        exchange.go_on(slot.link.instance.id, self._begun, self.running, upload, slot.done)
        return exchange


def repeats(head: RequestHeadFacts, size: int) -> bool:
    """Whether a head of `size` bytes may come again with nothing in it that means one call only."""
    fields = head.fields
    return (
        size <= SIZE
        and head.minor == 1
        and head.keep_alive
        and head.length is not None
        and head.length <= BODY
        and not (head.expect or head.upgrade or head.method == b"HEAD")
        and head.lines is fields.lines
        and not (fields.names & PER_CALL)
    )


def _request_template(head: RequestHeadFacts, target: CallTarget, lines: bytes) -> bytes:
    """As `Exchange` and the link make it together; takes the caller's address, the invocation's id, the trace's, the
    span, the request's id and the deadline in milliseconds."""
    first = b"%b %b HTTP/1.1\r\n%b" % (head.method, target.path, lines)
    last = b"%bcontent-length: %d\r\n" % (target.lines, head.length or 0)
    return b"".join(
        (
            first.replace(b"%", b"%%").replace(CALLER.encode(), b"%b"),
            b"septet-invocation-id: %b\r\ntraceparent: 00-%b-%b-00\r\nx-request-id: %b\r\nseptet-deadline: %d\r\n",
            last.replace(b"%", b"%%"),
        )
    )


def _whole(lane: Lane, head: bytes, front: Front) -> Whole | None:
    try:
        facts = parse_reply_head(head, lane.head.method)
    except SeptetError:
        return None
    own = front.desk.client_lines(facts.lines)
    if own is None or not _passes(facts):
        return None
    lines, dated = own
    extra = lane.target.route.reply_lines.replace(b"%", b"%%")
    counts, total = lane.series.entry(facts.status)
    parts = [
        status_line(facts.status).replace(b"%", b"%%"),
        lines.replace(b"%", b"%%"),
        b"%bX-Request-Id: %b\r\nSeptet-Invocation-Id: %b\r\ntraceparent: 00-%b-%b-00\r\n",
        extra.replace(b"{invocation}", b"%b"),
        b"Content-Length: %d\r\n\r\n" % (facts.length or 0),
    ]
    more = extra.count(b"{invocation}")
    return Whole(b"".join(parts), facts.status, facts.length or 0, dated, more, counts, total)


def _passes(facts: ReplyHeadFacts) -> bool:
    """A final reply with a body of a length that was told."""
    plain = 200 <= facts.status <= 599 and facts.status not in (204, 304)
    return plain and facts.length is not None and facts.length <= BODY and not facts.upgrade


def _record_template(head: RequestHeadFacts, target: CallTarget) -> bytes:
    """An `InvocationRecord` as JSON with what differs between calls left open."""
    text = {
        "namespace": target.namespace,
        "function": target.function,
        "revision": target.key[1],
        "api": target.route.api,
        "caller": target.caller.name,
        "method": head.method.decode("latin-1"),
        "path": target.path.partition(b"?")[0].decode("latin-1"),
    }
    fixed = msgspec.json.encode(text)[1:-1].replace(b"%", b"%%")
    return (
        b'{"id":"%b",' + fixed + b',"instance":"%b","correlation":"%b","cold":"%b","status":%d,"queued_at":%b,'
        b'"started_at":%b,"first_byte_at":%b,"ended_at":%b,"phases":{"queue":%b,"run":%.6f,"reply":0.0},'
        b'"bytes_in":%d,"bytes_out":%d}'
    )


def is_plain(lane: Lane) -> bool:
    """Whether its records need no look at each field before they are kept."""
    record = lane.record
    return record.isascii() and b"\\" not in record and b"\x7f" not in record and len(record) <= SIZE // 2
