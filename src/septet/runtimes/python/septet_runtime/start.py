"""From an exec'ed process to a served function."""

import os
import sys

from septet_runtime import frames
from septet_runtime.link import Link, LinkClosed
from septet_runtime.output import attribute_output
from septet_runtime.request import Context

MOST_CALLS = 1000


def start():
    if "SEPTET_PARK_FD" in os.environ:
        # What every function needs, loaded while nobody waits.
        from septet_runtime import loading, serving  # noqa: F401
        from septet_runtime.park import wait

        attribute_output()
        wait(int(os.environ["SEPTET_PARK_FD"]))
    else:
        attribute_output()
    code = os.environ.get("SEPTET_CODE", "/function/code")
    deps = os.environ.get("SEPTET_DEPS", "/function/deps")
    handler = None
    if os.environ.pop("SEPTET_AHEAD", ""):
        from septet_runtime import serving  # noqa: F401
        from septet_runtime.ahead import wait as wait_ahead

        handler = wait_ahead(int(os.environ["SEPTET_LINK_FD"]), lambda: _load(code, deps))
    link = Link(int(os.environ.pop("SEPTET_LINK_FD", "3")))
    sys.argv[:] = [os.path.join(code, "main.py")]
    Context.describe(os.environ)
    concurrency = int(os.environ.get("SEPTET_CONCURRENCY", "1") or 1)
    try:
        serve = _prepare(link, handler or _load(code, deps), concurrency)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        _refuse(link, error)
        sys.exit(1)
    try:
        serve()
    except LinkClosed:
        # Threads of the handler may never end; nobody is left to wait for them.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _load(code, deps):
    from septet_runtime.loading import find_dependencies, load

    find_dependencies(deps)
    sys.path.insert(0, code)
    return load(os.environ.get("SEPTET_HANDLER", ""), code)


def _prepare(link, handler, concurrency):
    """Returns what serves the handler; says READY."""
    from septet_runtime.loading import adapt, kind_of

    kind = kind_of(handler)
    if kind in ("asgi", "async"):
        from septet_runtime.tasks import serve_async

        return lambda: serve_async(link, kind, handler if kind == "asgi" else adapt(handler), ready, _refuse)

    from septet_runtime.serving import MOST_THREADS, Threads, handler_answer, serve_serial

    if kind == "wsgi":
        from septet_runtime.wsgi import wsgi_answer

        answer = wsgi_answer(handler, concurrency != 1)
    else:
        answer = handler_answer(adapt(handler))
    if concurrency == 1:
        ready(link, ahead=True)
        return lambda: serve_serial(link, answer)
    threads = link.waits = Threads(link, MOST_THREADS if concurrency < 0 else concurrency)
    ready(link)
    return lambda: threads.serve(answer)


def ready(link, ahead=False):
    """`ahead`: calls may wait in this process behind a running one, and be asked for back."""
    concurrency = int(os.environ.get("SEPTET_CONCURRENCY", "1") or 1)
    number = MOST_CALLS if concurrency < 0 else concurrency
    more = b',"ahead":true' if ahead else b""
    link.send(frames.encode(frames.READY, 0, b"", b'{"ok":true,"concurrency":%d,"version":1%b}' % (number, more)))


def _refuse(link, error):
    """The handler cannot be loaded: says so, and leaves the trace in the log too."""
    import json

    from septet_runtime.raised import describe, trace_of

    sys.stderr.write(trace_of(error))
    body = {"ok": False, **json.loads(describe(error))}
    link.send(frames.encode(frames.READY, 0, b"", json.dumps(body).encode()))
