"""What the front asks of the rest of the data plane, and what it tells it: targets, refusals, settings."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from septet.model.access import Caller
from septet.model.errors import SeptetError
from septet.model.instance import LimitMet
from septet.ports.signals import RevisionKey
from septet.wire.callroute import CallRoute, RenderError
from septet.wire.http1 import RequestHeadFacts
from septet.wire.problem import render_problem

if TYPE_CHECKING:
    from septet.dataplane.exchange import Exchange
    from septet.dataplane.express import Lane
    from septet.dataplane.front import Front

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

NO_HEADERS: frozenset[bytes] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FrontSettings:
    """Limits of a listener's connections. Times in seconds, sizes in bytes."""

    head_timeout: float = 10.0
    """From the first byte of a head to its last."""
    idle_timeout: float = 75.0
    """A connection without a request stays open this long."""
    body_window: float = 10.0
    """A body must bring `body_rate * body_window` bytes in each such span, unless the platform holds it back."""
    body_rate: float = 100.0
    """Bytes a second."""
    half_close_grace: float = 2.0
    """A client that closed its sending side may be gone: so long the call goes on before the answer moves."""
    linger: float = 2.0
    """After an error the client's bytes are read and dropped so long, lest a reset overtakes the answer."""
    flush_timeout: float = 30.0
    """A closing connection may take so long to take its last bytes."""
    tunnel_idle: float = 300.0
    """An upgraded connection without a byte either way is closed."""
    early_body: int = 64 * 1024
    """Of a body, so much is held while its call waits for an instance."""
    pipeline: int = 64 * 1024
    """Of further requests on the connection, so much is held while one is served."""
    drain_body: int = 256 * 1024
    """An unread rest of a body up to this size is read and dropped to keep the connection."""
    max_connections: int = 20_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ListenerFacts:
    """What is known of a listener. `trusted` are the networks whose X-Forwarded-* lines are believed ("unix"
    for peers on a unix socket). `context` is the dispatcher's own (which APIs, which default namespace)."""

    name: str = "main"
    secure: bool = False
    trusted: tuple[str, ...] = ()
    context: object = None
    settings: FrontSettings = FrontSettings()

    def trusts(self, peer: str) -> bool:
        if not peer:
            return "unix" in self.trusted
        try:
            address = ipaddress.ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        return any(address in ipaddress.ip_network(network) for network in self.trusted if network != "unix")


class Peer(NamedTuple):
    """The other end of a connection: `host` is its address without port, empty on a unix socket."""

    listener: ListenerFacts
    host: str
    port: int
    trusted: bool


class CallTarget(NamedTuple):
    """A call: of which revision, with which limits, in which style.

    `path` is the target that the function sees, path and query, starting with a slash. `timeout` is in seconds
    from when an instance took the call, `request_body` in bytes. `cut` are lower-case names of header lines that
    the function must not see besides those that `route` drops: a platform credential, for example. `lines` are
    further lines for the function, each ending in CRLF. `data` is the dispatcher's own.
    """

    namespace: str
    function: str
    key: RevisionKey
    path: bytes
    route: CallRoute
    timeout: float
    request_body: int
    caller: Caller
    cut: frozenset[bytes] = NO_HEADERS
    lines: bytes = b""
    data: object = None


class ControlTarget(NamedTuple):
    """A control request for an ASGI application; `state` goes into its scope."""

    app: ASGIApp
    request_body: int = 64 * 1024 * 1024
    render_error: RenderError = render_problem
    state: dict[str, Any] = {}  # noqa: RUF012  (copied for each request, never written)


class Elsewhere(NamedTuple):
    """The request is better answered by another process of the platform. `take(front, data)`, with all bytes that
    were read from its head on, either leads the connection there and returns None, or says what to do with it here.
    """

    take: Callable[[Front, bytes], CallTarget | Refusal | None]


class Refusal(NamedTuple):
    """The request is answered with an error at once."""

    error: SeptetError
    render_error: RenderError = render_problem


class Dispatcher(Protocol):
    """Admission and the way to an instance; implemented where routing table, policies and pool are known."""

    def route(self, head: RequestHeadFacts, peer: Peer) -> CallTarget | ControlTarget | Elsewhere | Refusal:
        """Decides at once, from memory. A SeptetError that it raises is a Refusal in the native style."""
        ...

    def lane(self, head: RequestHeadFacts, target: CallTarget, lines: bytes) -> Lane | None:
        """What calls with this very head share, so that the next one costs less; `lines` are those that the function
        gets of it. None when such calls may differ."""
        ...

    def submit(self, exchange: Exchange, again: bool) -> None:
        """Takes a call in: later, or at once, `exchange.assign` or `exchange.fail` is called, exactly once.
        `again`: it was assigned before, and the instance was lost before it began."""
        ...

    def withdraw(self, exchange: Exchange) -> None:
        """The caller of a call that was submitted and not assigned is gone: assign and fail come no more."""
        ...

    def crashed(self, exchange: Exchange, error: SeptetError) -> None:
        """The instance died under a call: calls `exchange.failed` once more, with what is known of the reason."""
        ...

    def limits(self, exchange: Exchange, then: Callable[[tuple[LimitMet, ...]], None]) -> None:
        """A call fails: calls `then` once, later and soon, with the limits that its instance met since it began."""
        ...

    def finished(self, exchange: Exchange) -> None:
        """A call is over; called once for each exchange that was submitted, with its times and sizes set."""
        ...


class Waits(Protocol):
    """The receiver of one request's body and of news about its client; the front drives it."""

    deadline: float
    """Loop time at which `expired` is called; infinity for none."""

    def body(self, chunk: bytes) -> None: ...

    def body_end(self) -> None: ...

    def broken(self, error: SeptetError) -> None:
        """The request cannot be completed: a limit, a bad chunk, a slow sender."""
        ...

    def client_gone(self) -> None:
        """The connection is lost."""
        ...

    def expired(self) -> None: ...

    def pause_reply(self) -> None:
        """The client does not take what is sent: send no more until `resume_reply`."""
        ...

    def resume_reply(self) -> None: ...


Loop = asyncio.AbstractEventLoop
