"""Errors for the platform: type, message and the user's part of the trace. Imported when something was raised."""

import json
import os
import traceback

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MESSAGE = 4096
TRACE = 32 * 1024


def describe(error):
    """An ERROR frame's JSON."""
    return json.dumps(
        {"type": type(error).__name__, "message": _message(error)[:MESSAGE], "trace": trace_of(error)[-TRACE:]}
    ).encode()


def trace_of(error):
    """The trace without this package's frames and the import system's."""
    found = traceback.TracebackException(type(error), error, error.__traceback__)
    _strip(found, set())
    return "".join(found.format())


def _strip(found, seen):
    if found is None or id(found) in seen:
        return
    seen.add(id(found))
    found.stack[:] = [frame for frame in found.stack if not frame.filename.startswith((_HERE, "<frozen importlib"))]
    _strip(found.__cause__, seen)
    _strip(found.__context__, seen)


def _message(error):
    try:
        return str(error)
    except Exception:
        return "(its message cannot be shown)"
