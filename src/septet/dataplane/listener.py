"""A bound address and its connections: start, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from pathlib import Path

from septet.dataplane.certificates import Certificates
from septet.dataplane.desk import Desk
from septet.dataplane.dispatch import Dispatcher, ListenerFacts
from septet.dataplane.front import FrontDesk
from septet.model.errors import InvalidInput, SeptetError, Unavailable

BACKLOG = 2048
HANDSHAKE_TIMEOUT = 10.0
RELOAD_PERIOD = 5.0


class Listener:
    """Serves one address. `address` is "host:port" (port 0 takes a free one; "[::1]:0" for IPv6) or
    "unix:/path"; or `sock` is a listening socket made elsewhere, for example inside a network namespace."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        facts: ListenerFacts,
        *,
        address: str = "",
        sock: socket.socket | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        if (certificates is not None) != facts.secure:
            raise InvalidInput("a secure listener and its certificates go together", hint="give both or none")
        self.facts = facts
        self._dispatcher = dispatcher
        self._address = address
        self._sock = sock
        self._certificates = certificates
        self._server: asyncio.Server | None = None
        self._more: set[asyncio.Server] = set()
        self._desk: FrontDesk | None = None
        self._reload: asyncio.TimerHandle | None = None
        self._path: Path | None = None

    async def start(self) -> None:
        """Binds and accepts. Unavailable when the address cannot be had, InvalidInput when it is none."""
        if self._sock is None:
            self._sock = self._bind()
        self._server = await self._serve(self._sock)
        if self._certificates is not None:
            self._reload = asyncio.get_running_loop().call_later(RELOAD_PERIOD, self._look_at_files)

    async def also(self, sock: socket.socket) -> asyncio.Server:
        """Accepts from another listening socket too, until `no_more`, or until this listener is drained."""
        server = await self._serve(sock)
        self._more.add(server)
        return server

    def no_more(self, server: asyncio.Server) -> None:
        """Connections that came by it stay."""
        server.close()
        self._more.discard(server)

    async def _serve(self, sock: socket.socket) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            # Accepted sockets inherit it; else a head and a body in two writes meet the delayed acknowledgement.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tls = self._certificates
        create = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
        return await create(
            self.desk,
            sock=sock,
            backlog=BACKLOG,
            ssl=tls.context if tls else None,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT if tls else None,
        )

    @property
    def port(self) -> int:
        """The port that was bound; 0 for a unix socket."""
        name = self._sock.getsockname() if self._sock is not None else None
        return int(name[1]) if isinstance(name, tuple) else 0

    @property
    def url(self) -> str:
        """Where clients find it, for example `http://127.0.0.1:8080`."""
        return url_of(self._sock, self.facts.secure)

    @property
    def desk(self) -> FrontDesk:
        """What its connections share, those that come another way included."""
        if self._desk is None:
            self._desk = FrontDesk(asyncio.get_running_loop(), self._dispatcher, self.facts)
        return self._desk

    @property
    def connections(self) -> int:
        return len(self._desk.connections) if self._desk is not None else 0

    def reload(self) -> None:
        """Reads the certificates again. InvalidInput when they cannot be used; the old ones stay then."""
        if self._certificates is not None:
            self._certificates.reload()

    async def drain(self, grace: float) -> bool:
        """Accepts no more, closes idle connections, lets requests end for `grace` seconds, then cuts what is left.

        True when nothing had to be cut. This is what SIGTERM asks for.
        """
        desk, server = self._desk, self._server
        if desk is None or server is None:
            return True
        if self._reload is not None:
            self._reload.cancel()
        server.close()
        for other in self._more:
            other.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        clean = await drain(desk, grace)
        self._server = None
        return clean

    def _bind(self) -> socket.socket:
        try:
            if self._address.startswith("unix:"):
                self._path = Path(self._address[5:])
                return bind_unix(self._path)
            return bind_tcp(self._address)
        except OSError as error:
            raise Unavailable(
                f"cannot listen on {self._address}: {os.strerror(error.errno) if error.errno else error}",
                hint="choose another address, or port 0 for a free one",
            ) from error

    def _look_at_files(self) -> None:
        """A certificate that was renewed is taken up; one that is broken leaves the old one in use."""
        if self._certificates is not None:
            with contextlib.suppress(SeptetError):
                self._certificates.reload_if_changed()
        self._reload = asyncio.get_running_loop().call_later(RELOAD_PERIOD, self._look_at_files)


async def drain(desk: Desk, grace: float) -> bool:
    """Closes idle connections, lets requests end for `grace` seconds, then cuts what is left; False when it had to."""
    desk.draining = True
    for front in list(desk.connections):
        front.drain()
    clean = await _emptied(desk, grace)
    if not clean:
        for front in list(desk.connections):
            front.abort()
        await _emptied(desk, 1.0)
    return clean


async def _emptied(desk: Desk, seconds: float) -> bool:
    if desk.connections:
        desk.on_empty.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(desk.on_empty.wait(), max(seconds, 0.001))
    return not desk.connections


def url_of(sock: socket.socket | None, secure: bool) -> str:
    """Where clients find a listening socket, for example `http://127.0.0.1:8080`."""
    scheme = "https" if secure else "http"
    name = sock.getsockname() if sock is not None else ""
    if not isinstance(name, tuple):
        return f"{scheme}+unix://{name}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{scheme}://{host}:{name[1]}"


def bind_unix(path: Path) -> socket.socket:
    """A listening socket at the path, for this user alone."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            path.unlink()
        old = os.umask(0o177)
        try:
            sock.bind(str(path))
        finally:
            os.umask(old)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def bind_tcp(address: str, shared: bool = False) -> socket.socket:
    """A listening socket at "host:port". `shared`: others of this user may listen there too, and the kernel deals
    new connections out among them."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise InvalidInput(
            f"{address!r} is not an address to listen on", hint="write HOST:PORT, for example 127.0.0.1:0"
        )
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host or "0.0.0.0", int(port)))  # noqa: S104  (an empty host asks for all addresses)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
