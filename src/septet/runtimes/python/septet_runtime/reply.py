"""From what a handler returned to a reply: its head, and where the body comes from."""

TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
JSON = "application/json"
LINES = "application/x-ndjson"


def encode_head(status, headers):
    """`headers` are pairs of text. ValueError when one would not be exactly one header line."""
    status = int(status)
    if not 100 <= status <= 599:
        raise ValueError(f"{status} is not an HTTP status")
    lines = [f"HTTP/1.1 {status} \r\n"]
    for name, value in headers:
        name, value = str(name), str(value)
        if not name or "\r" in name + value or "\n" in name + value or "\0" in name + value or ":" in name:
            raise ValueError(f"not a header: {name!r}: {value!r}")
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("latin-1")


def may_have_body(method, status):
    return method != b"HEAD" and status >= 200 and status not in (204, 304)


_HEADS = {}
"""Heads of plain replies by (type, length); a few hundred are worth their memory."""
_json = None


def _encode_json(value):
    global _json
    if _json is None:
        import json

        _json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
    return _json(value).encode()


def plain(method, result):
    """(head, body) of what most handlers return: text, bytes, a dict or a list, in one piece; None for all else."""
    kind = type(result)
    if kind is dict or kind is list:
        body, kind = _encode_json(result), JSON
    elif kind is str:
        body, kind = result.encode(), TEXT
    elif kind is bytes:
        body, kind = result, BYTES
    else:
        return None
    length = len(body)
    if method == b"HEAD" or length > 65536:
        return None
    head = _HEADS.get((kind, length))
    if head is None:
        if len(_HEADS) >= 512:
            _HEADS.clear()
        head = _HEADS[kind, length] = encode_head(200, [("content-type", kind), ("content-length", length)])
    return head, body


class Outcome:
    """A handler's result taken apart. `body` is bytes, or `chunks` is an iterator, or `achunks` an async one."""

    __slots__ = ("achunks", "body", "chunks", "headers", "status", "typed")

    def __init__(self, result):
        self.body = b""
        self.chunks = None
        self.achunks = None
        self.status, self.headers, result = _take_apart(result)
        self.typed = any(name.lower() == "content-type" for name, _ in self.headers)
        if result is None:
            if self.status is None:
                self.status = 204
            self.typed = True
        elif isinstance(result, (bytes, bytearray, memoryview, str, dict, list, int, float)):
            self.body, kind = encode_chunk(result, False)
            self.set_type(kind)
        elif hasattr(result, "__anext__"):
            self.achunks = result
        elif hasattr(result, "__next__"):
            self.chunks = result
        elif hasattr(result, "read"):
            self.chunks = iter(lambda: result.read(65536), b"")
        else:
            raise TypeError(
                f"a handler returns text, bytes, a JSON value, a response, (body, status, headers) or an iterator, "
                f"not {type(result).__name__}"
            )
        if self.status is None:
            self.status = 200

    def set_type(self, kind):
        if not self.typed:
            self.headers.append(("content-type", kind))
            self.typed = True


def encode_chunk(value, streaming=True):
    """One piece of a body, and the type that a reply gets which names none. A JSON value in a stream is a line."""
    if isinstance(value, str):
        return value.encode(), TEXT
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value), BYTES
    data = _encode_json(value)
    return data + b"\n" if streaming else data, LINES if streaming else JSON


def _take_apart(result):
    """(status or None, pairs, body)."""
    if isinstance(result, tuple):
        if not 1 <= len(result) <= 3 or (len(result) > 1 and not isinstance(result[1], int)):
            raise TypeError("a tuple that a handler returns is (body, status) or (body, status, headers)")
        body, status, headers = (*result, None, None)[:3] if len(result) < 3 else result
        return status, _pairs(headers), body
    if hasattr(result, "headers") and hasattr(result, "body"):
        status = getattr(result, "status", None) or getattr(result, "status_code", None)
        return status, _pairs(result.headers), result.body
    return None, [], result


def _pairs(headers):
    if not headers:
        return []
    items = headers.items() if hasattr(headers, "items") else headers
    pairs = []
    for name, value in items:
        values = value if isinstance(value, (list, tuple)) else (value,)
        pairs.extend((str(name), str(one)) for one in values if str(name).lower() != "content-length")
    return pairs
