"""Standard output and error, line by line on the link, each line with the call that printed it."""

import io
import sys

from septet_runtime import frames

LINE_MAX = 60_000


class Output(io.TextIOBase):
    """Stands for sys.stdout or sys.stderr. `send` takes a frame, `current` gives the running call's stream or 0."""

    def __init__(self, name, send, current, plain):
        self._name = name.encode()
        self._send = send
        self._current = current
        self._plain = plain
        self._parts = {}
        self.name = f"<{name}>"

    encoding = "utf-8"
    errors = "backslashreplace"

    @property
    def buffer(self):
        return self._plain.buffer

    def fileno(self):
        return self._plain.fileno()

    def writable(self):
        return True

    def isatty(self):
        return False

    def write(self, text):
        stream = self._current()
        begun = self._parts.pop(stream, "") + text
        *lines, rest = begun.split("\n")
        for line in lines:
            self._line(stream, line)
        if len(rest) > LINE_MAX:
            self._line(stream, rest)
        elif rest:
            self._parts[stream] = rest
        return len(text)

    def flush(self):
        """Only whole lines are sent: a prompt without an end waits for it."""

    def finish(self, stream):
        """The call is over: so is its last line."""
        rest = self._parts.pop(stream, "")
        if rest:
            self._line(stream, rest)

    def _line(self, stream, text):
        data = text.encode("utf-8", "backslashreplace")
        self._send(frames.encode(frames.LOG, stream, self._name, data[:LINE_MAX]))


def capture(send, current):
    """Puts the two in place; returns what ends a call's last lines."""
    outputs = [Output("stdout", send, current, sys.__stdout__), Output("stderr", send, current, sys.__stderr__)]
    sys.stdout, sys.stderr = outputs

    def finish(stream):
        for output in outputs:
            output.finish(stream)

    return finish
