"""A request as environment variables (RFC 3875), and header lines in front of an answer."""

import os

_HIDDEN = ("SEPTET_LINK_FD",)
_OWN = {"septet-invocation-id": "SEPTET_INVOCATION_ID", "septet-deadline": "SEPTET_DEADLINE"}


def environment(head):
    line, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = line.split(" ", 2)
    path, _, query = target.partition("?")
    env = {name: value for name, value in os.environ.items() if name not in _HIDDEN}
    env |= {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": _unquote(path),
        "QUERY_STRING": query,
        "REQUEST_URI": target,
    }
    seen = {}
    for line in lines:
        name, colon, value = line.partition(":")
        # "_" would make a second spelling of another name's variable.
        if colon and "_" not in name and name.lower() != "proxy":
            name = name.lower()
            seen[name] = f"{seen[name]}, {value.strip()}" if name in seen else value.strip()
    for name, value in seen.items():
        if name in ("content-type", "content-length"):
            env[name.upper().replace("-", "_")] = value
        else:
            env["HTTP_" + name.upper().replace("-", "_")] = value
        if name in _OWN:
            env[_OWN[name]] = value
    return {name: value.replace("\0", "") for name, value in env.items()}


def _unquote(path):
    if "%" not in path:
        return path
    from urllib.parse import unquote

    return unquote(path, errors="surrogateescape")


def parse_head(output, with_headers, whole, most):
    """(status, header lines, body). With headers, a status of None says that their end has not come yet.

    ValueError when they do not end, or one is not a header line.
    """
    if not with_headers:
        return 200, b"content-type: text/plain; charset=utf-8\r\n", output
    ends = [(at, len(end)) for end in (b"\r\n\r\n", b"\n\n") if (at := output.find(end)) >= 0]
    if not ends:
        if whole or len(output) > most:
            raise ValueError("the output has no header lines that end in an empty line")
        return None, b"", b""
    at, size = min(ends)
    status, lines = 200, []
    for line in output[:at].split(b"\n"):
        name, colon, value = line.strip(b"\r").partition(b":")
        if not colon or not name or b" " in name or b"\r" in value:
            raise ValueError(f"not a header line: {line[:80]!r}")
        if name.lower() == b"status":
            status = _status(value)
        elif name.lower() not in (b"content-length", b"transfer-encoding", b"connection"):
            lines.append(b"%b: %b\r\n" % (name, value.strip()))
    return status, b"".join(lines), output[at + size :]


def _status(value):
    number = value.strip()[:3]
    if not number.isdigit() or not 200 <= int(number) <= 599:
        raise ValueError(f"not a status: {value[:80]!r}")
    return int(number)
