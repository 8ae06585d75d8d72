"""A function's zygote: its code is loaded once, and each instance is a fork of that (docs/threat-model.md).

Over the link's descriptor (SOCK_SEQPACKET, JSON), spoken with the keeper of the namespace set:
zygote -> keeper  {"op": "able"}, or {"op": "unable", "why": ...} and the end
                  {"op": "ended", "pid": ..., "status": wait status}
keeper -> zygote  {"op": "fork", "id": ..., "env": {...}} with descriptors [stdout, stderr, link, gate]
                  {"op": "reap", "pid": ..., "id": ...}
A new instance says "u" at its gate, waits until it stands in its control groups, and closes the gate when it is itself.
"""

import gc
import json
import os
import random
import shutil
import socket
import sys
import time

_KEPT = {"0", "1", "2", "3"}
_LONGEST = 1 << 18


def wait(descriptor, load):
    """Loads the handler, and returns it in each instance. Never returns in the zygote."""
    control = socket.socket(fileno=descriptor)
    try:
        handler = load()
        why = _unfit()
    except BaseException as error:
        why = f"it cannot be loaded: {type(error).__name__}: {error}"
    if why:
        _say(control, op="unable", why=why[:2000])
        os._exit(0)
    gc.collect()
    gc.freeze()
    _say(control, op="able")
    ended = {}
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, _LONGEST, 4)
        if not data:
            os._exit(0)
        message = json.loads(data)
        _reap(ended)
        if message["op"] == "reap":
            pid = message["pid"]
            status = ended.pop(pid) if pid in ended else os.waitpid(pid, 0)[1]
            _say(control, op="ended", pid=pid, status=status)
            shutil.rmtree(_scratch(message["id"]), ignore_errors=True)
            continue
        try:
            pid = os.fork()
        except OSError as error:
            sys.stderr.write(f"the function's zygote cannot fork: {error}\n")
            pid = -1
        if pid == 0:
            control.detach()
            os.close(descriptor)
            _become(message, descriptors)
            return handler
        for number in descriptors:
            os.close(number)


def _say(control, **message):
    control.send(json.dumps(message).encode())


def _reap(ended):
    try:
        while (reaped := os.waitpid(-1, os.WNOHANG))[0]:
            ended[reaped[0]] = reaped[1]
    except ChildProcessError:
        pass


def _unfit():
    """Why what was loaded cannot be forked; empty when it can."""
    if len(sys._current_frames()) > 1:
        return "it starts a thread when it is loaded"
    try:
        os.waitpid(-1, os.WNOHANG)
        return "it starts a process when it is loaded"
    except ChildProcessError:
        pass
    for name in os.listdir("/proc/self/fd"):
        try:
            if name not in _KEPT:
                return f"it keeps {os.readlink('/proc/self/fd/' + name)} open when it is loaded"
        except FileNotFoundError:
            continue  # the one that lists
    # Libraries that can be forked end their own threads first, as those for linear algebra do.
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "it has a thread below Python that outlives a fork" if len(os.listdir("/proc/self/task")) > 1 else ""


def _scratch(instance):
    return f"/tmp/{instance}"


def _become(message, descriptors):
    stdout, stderr, link, gate = descriptors
    os.setsid()
    with socket.socket(fileno=gate) as keeper:
        keeper.send(b"u")
        if not keeper.recv(1):
            os._exit(1)
        for target, source in enumerate((stdout, stderr, link), 1):
            os.dup2(source, target)
            os.close(source)
        env = message["env"]
        folder = _scratch(message["id"])
        os.mkdir(folder, 0o700)
        if env.get("HOME") == "/tmp":
            env["HOME"] = folder
        env.setdefault("TMPDIR", folder)
        os.environ.clear()
        os.environ.update(env)
        _fresh_state()
    gc.enable()


def _fresh_state():
    """What a process must not have in common with another, where a loaded module keeps it."""
    random.seed()
    modules = sys.modules
    if numpy := modules.get("numpy.random"):
        numpy.seed()
    if uuid := modules.get("uuid"):
        uuid._last_timestamp = None
    if tempfile := modules.get("tempfile"):
        tempfile.tempdir = tempfile._name_sequence = None
    if logging := modules.get("logging"):
        logging._startTime = time.time_ns() if isinstance(logging._startTime, int) else time.time()
