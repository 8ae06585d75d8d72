"""Runs one process for each call: the body on its standard input, the answer on its standard output.

One thread polls the link and every process's pipes. Windows bound what is held: the body is taken from the link
as the process reads it, and the output is read as the platform takes it.
"""

import os
import select
import signal
import sys
import time

sys.path.insert(0, __file__.rpartition("/")[0])

from septet_exec import frames
from septet_exec.call import Call, Reply
from septet_exec.command import CommandNotFound, find_command

MOST_CALLS = 1000


class Loop:
    """Polls descriptors; each has a callback that takes the events."""

    def __init__(self, fd, command, limit):
        self.command = command
        self._fd = fd
        self._limit = limit if limit > 0 else MOST_CALLS
        self._poll = select.poll()
        self._callbacks = {}
        self._decoder = frames.Decoder()
        self._waiting = []
        self._calls = {}
        self._draining = False

    # -- for calls

    def send(self, data):
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def watch(self, fd, events, callback):
        """Replaces what was watched of `fd`; no events: nothing."""
        if events:
            self._callbacks[fd] = callback
            self._poll.register(fd, events)
        elif self._callbacks.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def forget(self, call):
        self._calls.pop(call.number, None)

    # -- inside

    def run(self):
        """Until the link ends, or it drained and the last call is over."""
        exits, wake = os.pipe()
        os.set_blocking(exits, False)
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self.watch(exits, select.POLLIN, lambda _: self._reap(exits))
        self.watch(self._fd, select.POLLIN, self._read)
        try:
            while not (self._draining and not self._calls and not self._waiting):
                self._take_up()
                for fd, events in self._poll.poll(self._timeout()):
                    callback = self._callbacks.get(fd)
                    if callback is not None:
                        callback(events)
                now = time.monotonic()
                for call in list(self._calls.values()):
                    call.tick(now)
        except (EOFError, ConnectionError):
            pass
        finally:
            for call in self._calls.values():
                call.kill()

    def _timeout(self):
        due = [call.due for call in self._calls.values() if call.due is not None]
        return max(0, int((min(due) - time.monotonic()) * 1000) + 1) if due else None

    def _take_up(self):
        while self._waiting and sum(call.started for call in self._calls.values()) < self._limit:
            call = self._waiting.pop(0)
            call.start()

    def _read(self, events):
        data = os.read(self._fd, 65536)
        if not data:
            raise EOFError
        for type_, flags, stream, head, body in self._decoder.feed(data):
            if type_ == frames.REQUEST:
                call = self._calls[stream] = Call(self, stream, head, body, bool(flags & frames.END))
                self._waiting.append(call)
            elif type_ == frames.DRAIN:
                self._draining = True
            elif stream in self._calls:
                self._to_call(self._calls[stream], type_, flags, body)

    def _to_call(self, call, type_, flags, body):
        if type_ == frames.DATA:
            call.feed(body, bool(flags & frames.END))
        elif type_ == frames.WINDOW:
            call.give(frames.credit(body))
        elif type_ == frames.CANCEL:
            if call in self._waiting:
                self._waiting.remove(call)
                self.forget(call)
                self.send(frames.encode(frames.GONE, call.number, flags=frames.NEVER_STARTED))
            else:
                call.cancel()

    def _reap(self, exits):
        while True:
            try:
                if not os.read(exits, 4096):
                    break
            except BlockingIOError:
                break
        for call in list(self._calls.values()):
            if call.started:
                call.reap()


def main():
    fd = int(os.environ.pop("SEPTET_LINK_FD", "3"))
    os.set_inheritable(fd, False)
    code = os.environ.get("SEPTET_CODE", "/function/code")
    concurrency = int(os.environ.get("SEPTET_CONCURRENCY", "1") or 1)
    Reply.with_headers = os.environ.get("SEPTET_EXEC_HEADERS", "") == "1"
    try:
        command = find_command(sys.argv[1:], os.environ.get("SEPTET_HANDLER", ""), code)
    except CommandNotFound as error:
        body = frames.json_of(type="CommandNotFound", message=str(error), trace="", ok=False)
        os.write(fd, frames.encode(frames.READY, 0, b"", body))
        sys.exit(1)
    body = frames.json_of(ok=True, concurrency=MOST_CALLS if concurrency < 0 else concurrency, version=1)
    os.write(fd, frames.encode(frames.READY, 0, b"", body))
    Loop(fd, command, concurrency).run()


if __name__ == "__main__":
    main()
