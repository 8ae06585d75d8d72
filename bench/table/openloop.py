#!/usr/bin/env python3
"""The load generator where there is no C compiler: the same options, the same rules and the same output as openloop.c.

It is slower, so its own lateness is larger: read `late_p99` before believing a `p99`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import socket
import time
from pathlib import Path

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Connection:
    """One keep-alive connection, and the request that is under way on it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.due = 0.0
        self.busy = False
        self.data = b""

    def whole(self) -> bool:
        head, found, body = self.data.partition(b"\r\n\r\n")
        if not found:
            return False
        length = LENGTH.search(head)
        if length:
            return len(body) >= int(length[1])
        return self.data.endswith(b"0\r\n\r\n") or head[9:12] in (b"204", b"304")


class Generator:
    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.address = (given.host, given.port)
        token = f"Authorization: Bearer {given.token}\r\n" if given.token else ""
        self.requests = [
            f"GET {path} HTTP/1.1\r\nHost: {given.host}\r\n{token}\r\n".encode()
            for path in Path(given.paths).read_text().splitlines()
        ]
        self.epoll = select.epoll()
        self.by_fd: dict[int, Connection] = {}
        self.idle: list[Connection] = []
        self.latency: list[float] = []
        self.late: list[float] = []
        self.sent = self.failed = 0
        for _ in range(given.connections):
            self.idle.append(self.join())

    def join(self) -> Connection:
        connection = Connection(self.address)
        self.by_fd[connection.socket.fileno()] = connection
        self.epoll.register(connection.socket, select.EPOLLIN)
        return connection

    def begin(self, due: float) -> None:
        connection = self.idle.pop()
        connection.due, connection.busy, connection.data = due, True, b""
        connection.socket.send(self.requests[self.sent % len(self.requests)])
        self.sent += 1

    def receive(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            del self.by_fd[connection.socket.fileno()]
            connection.socket.close()
            fresh = self.join()
            if connection.busy:
                self.failed += 1
                self.idle.append(fresh)
            elif connection in self.idle:
                self.idle[self.idle.index(connection)] = fresh
            return
        connection.data += data
        if connection.busy and connection.whole():
            self.latency.append(time.monotonic() - connection.due)
            self.failed += connection.data[9:10] != b"2"
            connection.busy = False
            self.idle.append(connection)

    def run(self) -> float:
        """Seconds that it took."""
        rate, connections = self.given.rate, self.given.connections
        start = time.monotonic()
        stop = start + self.given.seconds
        wanted = int(rate * self.given.seconds)
        while True:
            now = time.monotonic()
            if rate:
                due = min(wanted, wanted if now >= stop else int((now - start) * rate) + 1)
                self.late += [now - (start + number / rate) for number in range(len(self.late), due)]
                while self.idle and self.sent < due:
                    self.begin(start + self.sent / rate)
            elif now < stop:
                while self.idle:
                    self.begin(time.monotonic())
            more = self.sent < wanted if rate else now < stop
            if (not more and len(self.idle) == connections) or now > stop + 5:
                return time.monotonic() - start
            rest = stop + 5 - now
            if rate and len(self.late) < wanted:
                rest = start + len(self.late) / rate - time.monotonic()
            elif not rate and now < stop:
                rest = stop - now
            # epoll's own timeout counts milliseconds, select's microseconds.
            if not select.select([self.epoll], [], [], max(0.0, rest))[0]:
                continue
            for descriptor, _ in self.epoll.poll(0):
                self.receive(self.by_fd[descriptor])


def at(values: list[float], share: float) -> float:
    return round(values[min(len(values) - 1, int(share * len(values)))] * 1e3, 4) if values else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--paths", required=True, help="a file with one path a line, taken in turn")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second; 0: as fast as answers come")
    parser.add_argument("--token", default="")
    parser.add_argument("--core", type=int, default=-1)
    given = parser.parse_args()
    if given.core >= 0:
        os.sched_setaffinity(0, {given.core})
    generator = Generator(given)
    took = generator.run()
    latency, late = sorted(generator.latency), sorted(generator.late)
    unsent = max(0, int(given.rate * given.seconds) - generator.sent)
    result = {
        "generator": "python",
        "requests": len(latency),
        "failed": generator.failed + given.connections - len(generator.idle) + unsent,
        "seconds": round(took, 6),
        "rate": round(len(latency) / took, 1),
        **{name: at(latency, share) for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999))},
        "max": at(latency, 1),
        "late_p50": at(late, 0.5),
        "late_p99": at(late, 0.99),
        "late_max": at(late, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
