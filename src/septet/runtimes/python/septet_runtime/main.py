"""Load, report, serve."""

import os
import sys

from septet_runtime import frames
from septet_runtime.calls import raised
from septet_runtime.load import load


def main():
    fd = int(os.environ.get("SEPTET_LINK_FD", "3"))
    os.set_inheritable(fd, False)
    code = os.environ.get("SEPTET_CODE", "/function/code")
    deps = os.environ.get("SEPTET_DEPS", "/function/deps")
    concurrency = int(os.environ.get("SEPTET_CONCURRENCY", "1"))
    try:
        handler, kind = load(code, deps, os.environ.get("SEPTET_HANDLER", ""))
    except (Exception, SystemExit) as error:
        answer = raised(error)[:-1] + b', "ok": false}'
        _write(fd, frames.encode(frames.READY, 0, b"", answer))
        sys.exit(1)
    if kind in ("async", "asgi"):
        from septet_runtime.async_loop import serve
    else:
        from septet_runtime.sync_loop import serve
    ready = b'{"ok": true, "version": 1, "concurrency": %d}' % concurrency
    serve(fd, handler, kind, concurrency, frames.encode(frames.READY, 0, b"", ready))


def _write(fd, data):
    while data:
        data = data[os.write(fd, data) :]
