"""The function that the suite runs in real sandboxes: harmless even without walls. Standard library only.

Words of its command line: `echo`, `late` (listens after half a second), `deaf` (refuses SIGTERM), `fork` (leaves
a detached grandchild), `print`, `exit=N`, `spin` (two processes that never rest, beside).
"""

import os
import signal
import socket
import sys
import threading
import time


def echo(connection: socket.socket) -> None:
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)


def serve() -> None:
    if "SEPTET_LINK_FD" in os.environ:
        echo(socket.socket(fileno=int(os.environ["SEPTET_LINK_FD"])))
        signal.pause()
    listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=echo, args=(connection,), daemon=True).start()


def main(words: list[str]) -> None:
    if "deaf" in words:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "fork" in words and os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.pause()
        os._exit(0)
    if "spin" in words and os.fork() == 0:
        os.fork()
        while True:
            pass
    if "print" in words:
        print("out one\nout two", flush=True)
        print("err one", file=sys.stderr, flush=True)
    for word in words:
        if word.startswith("exit="):
            sys.exit(int(word[5:]))
    if "late" in words:
        time.sleep(0.5)
    serve()


main(sys.argv[1:])
