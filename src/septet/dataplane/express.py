"""The express lane: what a client asked before, byte for byte, costs no second look.

A request whose whole head was seen before on this listener from this address has the same function, caller, lines and
limits, until anything in the routing table or any token changes. All of that is a `Lane`, made once; such a call is
one `ExpressCall` that fills a few values into ready bytes. Whatever is out of the ordinary (no free instance, a
reply in pieces, a client that goes away, a deadline) turns it into an `Exchange`, which knows everything.
"""

from __future__ import annotations

from bisect import bisect_left
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
    from septet.dataplane.pool import RevisionPool, Slot
    from septet.dataplane.table import Table
    from septet.ports.logs import Logs

SIZE = 2048
"""The longest head that is remembered, of a request and of a reply."""
LANES = 1024
REPLIES = 64
BODY = 64 * 1024
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
        table: Table,
        lines: bytes,
        pool: RevisionPool,
        series: Series,
        logs: Logs,
    ) -> None:
        self.calls = calls
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
        """Sends the call to an instance at once; False, and nothing happened, when it must go the usual way."""
        now = monotonic()
        desk = front.desk
        wall = desk.wall(now)
        if self.generation != self.table.generation or wall >= self.expires:
            return False
        slot = self.pool.take(now)
        if slot is None:
            return False
        invocation, span = desk.ids.pair()
        call = ExpressCall(front, self, slot, invocation, span, now, body)
        head = self.template % (invocation, invocation, span, invocation, (wall + self.timeout) * 1000)
        link = slot.short
        try:
            if link is None:
                raise InstanceLost("this link takes no short calls")
            call.number = link.ask(head, body, call)
        except InstanceLost:
            # The usual way tells why, or finds another instance.
            self.pool.untake(slot)
            return False
        self.calls.open += 1
        front.busy(call)
        return True

    def whole(self, head: bytes, front: Front) -> Whole | None:
        """What this reply head becomes for the client; None for one that goes the usual way."""
        found = self.replies.get(head)
        if found is None and head not in self.replies:
            if len(self.replies) >= REPLIES:
                self.replies.clear()
            found = _whole(self, head, front) if len(head) <= SIZE else None
            self.replies[head] = found
        return found


class ExpressCall:
    """One call on a lane (`ports.contract.ShortCall`, and the receiver of its connection)."""

    __slots__ = ("_begun", "_body", "_front", "_lane", "_slot", "_span", "deadline", "id", "number", "running")

    def __init__(
        self, front: Front, lane: Lane, slot: Slot, invocation: bytes, span: bytes, now: float, body: bytes
    ) -> None:
        self._front = front
        self._lane = lane
        self._slot = slot
        self._span = span
        self._begun = now
        self._body = body
        self.id = invocation
        self.number = 0
        self.deadline = now + lane.timeout
        self.running = False

    # -- ports.contract.ShortCall

    @property
    def invocation(self) -> str:
        return self.id.decode()

    def answered(self, head: bytes, body: bytes) -> bool:
        front, lane = self._front, self._lane
        found = lane.replies.get(head) or lane.whole(head, front)
        size = len(body)
        if found is None or size != found.length or not front.undisturbed:
            return False
        now = monotonic()
        id = self.id
        desk = front.desk
        date = b"" if found.dated else desk.date()
        fill = (date, id, id, id, self._span)
        data = found.template % ((*fill, *(id,) * found.more) if found.more else fill)
        front.answered(data + body, now)
        lane.pool.release(self._slot, now)
        self._note(now, found, size)
        front.proceed()
        return True

    def _note(self, now: float, found: Whole, size: int) -> None:
        """What `Calls.finished` does for other calls."""
        lane = self._lane
        lane.calls.open -= 1
        took = now - self._begun
        found.counts[bisect_left(BUCKETS, took)] += 1
        found.total[0] += took
        series = lane.series
        taken = len(self._body)
        series.bytes_in += taken
        series.bytes_out += size
        offset = self._front.desk.wall_offset
        began, ended = b"%.6f" % (self._begun + offset), b"%.6f" % (now + offset)
        id = self.id
        lane.logs.record_encoded(
            lane.key,
            lane.record % (id, self._slot.name, id, found.status, began, began, ended, ended, took, taken, size),
        )

    def unfold(self) -> None:
        self._exchange()

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
        self._exchange().pause_reply()

    def resume_reply(self) -> None:
        self._exchange().resume_reply()

    def _exchange(self) -> Exchange:
        """The same call the usual way."""
        front, lane, slot = self._front, self._lane, self._slot
        head, target, link = lane.head, lane.target, slot.short
        assert link is not None
        exchange = Exchange(front, head, target)
        trace = b"00-%b-%b-00" % (self.id, self._span)
        exchange.take_over(self.id, trace, self._begun, self._begun + front.desk.wall_offset, self._body, self.running)
        front.unfold(exchange, head.method, len(self._body))
        request = RequestHead(head.method, target.path, b"", head.length, self.invocation, self.deadline)
        exchange.go_on(link.instance.id, link.unfold(self.number, request, exchange), slot.done)
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
    """As `Exchange` and the link make it together; takes the invocation's id, the trace's, the span, the request's id
    and the deadline in milliseconds."""
    first = b"%b %b HTTP/1.1\r\n%b" % (head.method, target.path, lines)
    last = b"%bcontent-length: %d\r\n" % (target.lines, head.length or 0)
    return b"".join(
        (
            first.replace(b"%", b"%%"),
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
        b'{"id":"%b",' + fixed + b',"instance":"%b","correlation":"%b","status":%d,"queued_at":%b,"started_at":%b,'
        b'"first_byte_at":%b,"ended_at":%b,"phases":{"queue":0.0,"run":%.6f,"reply":0.0},"bytes_in":%d,"bytes_out":%d}'
    )


def is_plain(lane: Lane) -> bool:
    """Whether its records need no look at each field before they are kept."""
    record = lane.record
    return record.isascii() and b"\\" not in record and b"\x7f" not in record and len(record) <= SIZE // 2
