"""Printed text, attributed to the call that prints it; outside of calls it goes to the descriptor as ever."""

import io
import sys
from contextvars import ContextVar

current = ContextVar("septet_call", default=None)


class Output(io.TextIOBase):
    """Stands for sys.stdout or sys.stderr."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, name, file):
        self._name = name
        self._file = file
        self.name = f"<{name}>"

    def write(self, text):
        call = current.get()
        if call is None or call.finished:
            self._file.write(text)
            if "\n" in text:
                self._file.flush()
        else:
            call.log(self._name, text)
        return len(text)

    def flush(self):
        self._file.flush()

    def writable(self):
        return True

    def fileno(self):
        return self._file.fileno()

    @property
    def buffer(self):
        return self._file.buffer


def attribute_output():
    sys.stdout = Output("stdout", sys.stdout)
    sys.stderr = Output("stderr", sys.stderr)
