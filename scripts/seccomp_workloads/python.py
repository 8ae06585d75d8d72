"""What Python functions do: run under the tracer to learn, and under the filter to prove, which calls they need."""

import asyncio
import contextlib
import ctypes
import faulthandler
import fcntl
import glob
import hashlib
import http.client
import http.server
import json
import logging
import mmap
import multiprocessing
import os
import random
import resource
import select
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zipfile
from concurrent.futures import ThreadPoolExecutor


def files(root: str) -> None:
    path = os.path.join(root, "a.txt")
    with open(path, "w+b") as file:
        file.write(b"x" * 5000)
        file.flush()
        os.fsync(file.fileno())
        file.seek(10)
        file.truncate(100)
        fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.lockf(file, fcntl.LOCK_UN)
        os.pread(file.fileno(), 10, 0)
        os.pwrite(file.fileno(), b"y", 0)
        with mmap.mmap(file.fileno(), 0) as mapped:
            mapped[0:1] = b"z"
    os.readlink("/proc/self/exe")
    os.chmod(path, 0o600)
    os.utime(path)
    os.access(path, os.R_OK)
    os.statvfs(root)
    shutil.copy(path, path + ".copy")
    os.rename(path + ".copy", path + ".moved")
    shutil.copytree(root, root + ".tree")
    shutil.rmtree(root + ".tree")
    glob.glob(root + "/*")
    with zipfile.ZipFile(os.path.join(root, "z.zip"), "w") as archive:
        archive.write(path)
    with tempfile.TemporaryFile() as scratch:
        scratch.write(b"1")
    here = os.getcwd()
    os.chdir(root)
    os.chdir(here)
    os.umask(os.umask(0o22))


def database(root: str) -> None:
    with contextlib.closing(sqlite3.connect(os.path.join(root, "d.sqlite"))) as db:
        db.execute("pragma journal_mode=wal")
        db.execute("create table t (a)")
        db.executemany("insert into t values (?)", [(n,) for n in range(100)])
        db.commit()


def threads() -> None:
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda n: n * n, range(50))) == 40425
    event = threading.Event()
    threading.Timer(0.01, event.set).start()
    assert event.wait(5)


async def asynchronous() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
    writer.write(b"hello\n")
    assert await reader.readline() == b"hello\n"
    writer.close()
    server.close()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: None)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert await asyncio.to_thread(lambda: 5) == 5
    child = await asyncio.create_subprocess_exec("/bin/echo", "hi", stdout=subprocess.PIPE)
    assert (await child.communicate())[0] == b"hi\n"
    await loop.getaddrinfo("localhost", 80)


def processes() -> None:
    script = "for i in 1 2; do echo $i; done | sort -r; ls -l / >/dev/null; cat /dev/null; test -r /etc/passwd"
    assert subprocess.run(["/bin/sh", "-c", script], capture_output=True, timeout=20).stdout == b"2\n1\n"
    sleeper = subprocess.Popen(["/bin/sleep", "60"], start_new_session=True, cwd="/")
    sleeper.terminate()
    sleeper.wait()
    with contextlib.suppress(OSError), multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]


def network() -> None:
    class Hello(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        client = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
        client.request("GET", "/")
        assert client.getresponse().read() == b"ok"
        client.close()
        server.shutdown()
    left, right = socket.socketpair()
    socket.send_fds(left, [b"x"], [1])
    os.close(socket.recv_fds(right, 1, 1)[1][0])
    right.shutdown(socket.SHUT_WR)
    select.select([left], [], [], 1)
    poller = select.poll()
    poller.register(left)
    poller.poll(1)
    datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagram.bind(("127.0.0.1", 0))
    datagram.sendto(b"x", datagram.getsockname())
    datagram.recvfrom(10)
    with contextlib.suppress(OSError):
        socket.getaddrinfo("localhost", 443)


def encryption() -> None:
    context = ssl.create_default_context()
    inbound, outbound = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(inbound, outbound, server_hostname="example.org").do_handshake()
    assert outbound.read()


def rest() -> None:
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    time.sleep(0.02)
    uuid.uuid4()
    random.SystemRandom().random()
    hashlib.scrypt(b"a", salt=b"b", n=2, r=8, p=1)
    resource.getrusage(resource.RUSAGE_SELF)
    resource.getrlimit(resource.RLIMIT_NOFILE)
    os.cpu_count()
    os.sched_getaffinity(0)
    os.uname()
    os.getppid()
    sys.stdout.isatty()
    json.dumps(dict(os.environ))
    logging.getLogger().warning("to standard error")
    ctypes.CDLL(None).getpid()
    faulthandler.enable()
    threading.Thread(target=signal.raise_signal, args=(signal.SIGALRM,)).start()
    signal.alarm(1)
    signal.alarm(0)
    read, write = os.pipe()
    if os.fork() == 0:
        os.dup2(write, 1)
        os._exit(0)
    os.wait()
    os.close(read)
    os.close(write)


def main() -> None:
    root = tempfile.mkdtemp()
    try:
        files(root)
        database(root)
    finally:
        shutil.rmtree(root)
    threads()
    asyncio.run(asynchronous())
    processes()
    network()
    encryption()
    rest()
    print("done")


if __name__ == "__main__":
    main()
