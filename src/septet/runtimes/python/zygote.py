"""Python's part of a zygote: what is imported ahead of time, and how a forked process becomes like an exec'ed one.

It runs before any function is known, so nothing here may read an environment, make a random number or keep a time.
"""

import gc
import io
import os
import signal
import sys
import time
from importlib.machinery import SourceFileLoader

# What nearly every handler needs. Left out is what keeps a time, an id or a random number of its own.
AHEAD = ("json", "asyncio", "urllib.parse", "inspect", "traceback")
OURS = ("start", "park", "loading", "serving", "tasks", "raised", "asgi", "wsgi")


def preload():
    for name in (*AHEAD, *(f"septet_runtime.{name}" for name in OURS)):
        __import__(name)
    # It keeps the name of the host.
    sys.modules.pop("platform", None)
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "septet_runtime":
            # Inside, the source lies where the module says, for whoever asks for a line of it.
            module.__spec__.loader = module.__loader__ = SourceFileLoader(name, module.__file__)


def told(env):
    """The environment of the function, and its working directory entered: known already, or, in an instance that
    waits without a function yet, once it is told (docs/add-a-runtime.md)."""
    descriptor = env.get("SEPTET_PARK_FD", "")
    if not descriptor:
        return env
    from septet_runtime import park

    return park.told(int(descriptor))


def run(command, env):
    """Runs `command` (interpreter, -I, -S, -B, script, words) in this process, which was forked a moment ago."""
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    _fresh_state()
    for name, descriptor, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        stream = _stream(name, descriptor, mode, getattr(sys, f"__{name}__"))
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    script = command[4]
    sys.orig_argv[:] = command
    sys.argv[:] = command[4:]
    with open(script, "rb") as file:
        code = compile(file.read(), script, "exec", dont_inherit=True)
    main = type(sys)("__main__")
    main.__file__ = script
    main.__cached__ = None
    main.__builtins__ = __builtins__
    main.__loader__ = SourceFileLoader("__main__", script)
    sys.modules["__main__"] = main
    gc.enable()
    exec(code, main.__dict__)


def _fresh_state():
    # An interpreter sets these three up at its start; the rest is as exec leaves it.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if random := sys.modules.get("random"):
        random.seed()
    if threading := sys.modules.get("threading"):
        # It remembers the first thread's number in the kernel.
        threading.main_thread()._set_native_id()
    if logging := sys.modules.get("logging"):
        # It tells times relative to its import, in nanoseconds from 3.13 on.
        logging._startTime = time.time_ns() if isinstance(logging._startTime, int) else time.time()


def _stream(name, descriptor, mode, old):
    raw = io.FileIO(descriptor, mode, closefd=False)
    raw.name = f"<{name}>"
    buffered = io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
    stream = io.TextIOWrapper(buffered, encoding=old.encoding, errors=old.errors, newline=None if mode == "r" else "\n")
    stream.mode = mode
    if name == "stderr":
        stream.reconfigure(line_buffering=True)
    return stream
