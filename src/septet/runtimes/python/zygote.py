"""Python's part of a zygote: what is imported ahead of time, and how a forked process becomes like an exec'ed one.

It runs before any function is known, so nothing here may read an environment, make a random number or keep a time.
"""

import _signal
import gc
import io
import os
import socket
import sys
import time
from importlib.machinery import SourceFileLoader

# What nearly every handler needs. Left out is what keeps a time, an id or a random number of its own.
AHEAD = ("json", "asyncio", "urllib.parse", "inspect", "traceback")
OURS = ("start", "park", "loading", "serving", "tasks", "raised", "asgi", "wsgi")
STREAMS = (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w"))
REHEARSALS = 32

made = {}
"""What a function's process finds ready: its standard streams, and the code of its start script."""


def preload(script, source):
    """Whatever can be done before the fork is done here: a page that a function's process has to touch for the first
    time costs it as much as a hundred lines of code."""
    for name in (*AHEAD, *(f"septet_runtime.{name}" for name in OURS)):
        __import__(name)
    # It keeps the name of the host.
    sys.modules.pop("platform", None)
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "septet_runtime":
            # Inside, the source lies where the module says, for whoever asks for a line of it.
            module.__spec__.loader = module.__loader__ = SourceFileLoader(name, module.__file__)
    if source:
        made[script] = compile(source, script, "exec", dont_inherit=True)
    for name, descriptor, mode in STREAMS:
        made[name] = _stream(name, descriptor, mode, getattr(sys, f"__{name}__"))
    _rehearse()


def _rehearse():
    """Serves calls to nobody. The interpreter adapts code to what it meets by writing into it, and each function's
    process would get a copy of the page for that."""
    from septet_runtime import frames, link, loading, serving

    ours, theirs = socket.socketpair()
    with ours, theirs:
        head = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
        for number in range(1, REHEARSALS + 1):
            ours.sendall(frames.encode(frames.REQUEST, number, head, b"", frames.END))
        ours.sendall(frames.encode(frames.DRAIN, 0))

        def handler(request, context):
            return {"method": request.method}

        for _ in range(REHEARSALS):
            loading.kind_of(handler)
        serving.serve_serial(link.Link(theirs.fileno()), serving.handler_answer(loading.adapt(handler)))


def run(command, env, show):
    """Runs `command` (interpreter, -I, -S, -B, script, words) in this process, which was forked a moment ago. `show`
    is called with the environment that the function has in the end."""
    _fresh_state()
    for name, _, _ in STREAMS:
        setattr(sys, name, made[name])
        setattr(sys, f"__{name}__", made[name])
    script = command[4]
    sys.orig_argv[:] = command
    sys.argv[:] = command[4:]
    main = type(sys)("__main__")
    main.__file__ = script
    main.__cached__ = None
    main.__builtins__ = __builtins__
    main.__loader__ = SourceFileLoader("__main__", script)
    sys.modules["__main__"] = main
    # Most of it is the same already, and every change copies pages.
    for name in [name for name in os.environ if name not in env]:
        del os.environ[name]
    for name, value in env.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    if "SEPTET_PARK_FD" in env:
        # The start script waits for the rest of it when all else is done.
        sys.modules["septet_runtime.park"].show = show
    else:
        show(env)
    if "TZ" in env:
        time.tzset()
    code = made.get(script)
    if code is None:
        with open(script, "rb") as file:
            code = compile(file.read(), script, "exec", dont_inherit=True)
    made.clear()
    gc.enable()
    exec(code, main.__dict__)


def _fresh_state():
    # An interpreter sets these three up at its start; the rest is as exec leaves it. (`signal` would look each number
    # up in an enumeration.)
    _signal.signal(_signal.SIGPIPE, _signal.SIG_IGN)
    _signal.signal(_signal.SIGXFSZ, _signal.SIG_IGN)
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    if random := sys.modules.get("random"):
        random.seed()
    if threading := sys.modules.get("threading"):
        # It remembers the first thread's number in the kernel.
        threading.main_thread()._set_native_id()
    if logging := sys.modules.get("logging"):
        # It tells times relative to its import, in nanoseconds from 3.13 on.
        logging._startTime = time.time_ns() if isinstance(logging._startTime, int) else time.time()


def _stream(name, descriptor, mode, old):
    """As an interpreter makes it whose standard output is a pipe, which ours is not."""
    kept = os.dup(descriptor)
    if mode == "w":
        for end in os.pipe():
            os.dup2(end, descriptor)  # the second is the one to write to
            os.close(end)
    try:
        raw = io.FileIO(descriptor, mode, closefd=False)
        raw.name = f"<{name}>"
        buffered = io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
        newline = None if mode == "r" else "\n"
        stream = io.TextIOWrapper(buffered, encoding=old.encoding, errors=old.errors, newline=newline)
        stream.mode = mode
        if name == "stderr":
            stream.reconfigure(line_buffering=True)
    finally:
        os.dup2(kept, descriptor, inheritable=False)
        os.close(kept)
    return stream
