#!/usr/bin/env python3
"""The smallest HTTP server around a handler, for the references: keep-alive, one thread, standard library.

http_handler.py FILE (PORT | SOCKET)      FILE defines handle(request, context), which returns what JSON can say.
"""

import json
import runpy
import select
import socket
import sys


def main() -> None:
    handle = runpy.run_path(sys.argv[1])["handle"]
    where = sys.argv[2]
    if where.isdigit():
        listener = socket.create_server(("127.0.0.1", int(where)))
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(where)
        listener.listen(1024)
    poller = select.epoll()
    poller.register(listener, select.EPOLLIN)
    links: dict[int, socket.socket] = {}
    pending: dict[int, bytes] = {}
    while True:
        for descriptor, _ in poller.poll():
            if descriptor == listener.fileno():
                link, _ = listener.accept()
                if where.isdigit():
                    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                links[link.fileno()] = link
                pending[link.fileno()] = b""
                poller.register(link, select.EPOLLIN)
                continue
            link = links[descriptor]
            try:
                data = link.recv(65536)
            except OSError:
                data = b""
            if not data:
                poller.unregister(descriptor)
                del links[descriptor], pending[descriptor]
                link.close()
                continue
            data = pending[descriptor] + data
            while b"\r\n\r\n" in data:
                _, _, data = data.partition(b"\r\n\r\n")
                body = json.dumps(handle(None, None)).encode()
                top = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                link.sendall(top + body)
            pending[descriptor] = data


if __name__ == "__main__":
    main()
