#!/usr/bin/env python3
"""Peak memory of the platform with large bodies: 1 MiB each way, then 1 GiB each way, in the same process."""

from __future__ import annotations

from harness import Options, Platform, Row, main, status

SOURCE = {
    "main.py": """
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    block, left = bytes(65536), int(scope["query_string"] or b"0")
    while left:
        part = min(left, len(block))
        await send({"type": "http.response.body", "body": block[:part], "more_body": True})
        left -= part
    await send({"type": "http.response.body", "body": b"%d" % size})
"""
}


def bench(options: Options) -> list[Row]:
    with Platform(options.scratch / "data") as platform:
        limits = {"timeout": 300, "request_body": 2 << 30}
        platform.deploy("sink", SOURCE, handler="main:app", access="public", limits=limits)
        _both_ways(platform, 1 << 20)
        small = status(platform.pid, "VmHWM")
        _both_ways(platform, 1 << 30)
        large = status(platform.pid, "VmHWM")
    return [Row("peak memory of the platform, 1 GiB each way", "MiB", [large], "1 MiB each way", [small])]


def _both_ways(platform: Platform, size: int) -> None:
    link = platform.connection(300)
    block = bytes(1 << 20)
    link.putrequest("POST", "/fn/default/sink/")
    link.putheader("Content-Length", str(size))
    link.endheaders()
    for _ in range(size >> 20):
        link.send(block)
    got = link.getresponse()
    told = got.read()
    if (got.status, told) != (200, b"%d" % size):
        raise SystemExit(f"upload: {got.status} {told[:200]!r}")
    link.request("GET", f"/fn/default/sink/?{size}")
    got, seen = link.getresponse(), 0
    while part := got.read(1 << 20):
        seen += len(part)
    if seen != size + 1:
        raise SystemExit(f"download: {got.status}, {seen} bytes")
    link.close()


if __name__ == "__main__":
    main(bench, rounds=1)
