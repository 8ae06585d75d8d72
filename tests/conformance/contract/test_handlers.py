"""What functions may be, per runtime: values, streams, applications; and what the platform is told of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from contract_beds import BEDS, Bed
from contract_processes import Instance, Recorder, call, find, head, start_frames

from septet.model.errors import FunctionRaised
from septet.ports.contract import Link
from septet.registry import runtimes

PLAIN = [bed for bed in BEDS if bed.name != "http1"]


@pytest.fixture(params=BEDS, ids=lambda bed: bed.name)
def bed(request: pytest.FixtureRequest) -> Bed:
    found: Bed = request.param
    found.need()
    return found


@pytest.fixture(params=PLAIN, ids=lambda bed: bed.name)
def plain(request: pytest.FixtureRequest) -> Bed:
    found: Bed = request.param
    found.need()
    return found


@asynccontextmanager
async def function(
    folder: Path, runtime: str, files: dict[str, str], handler: str = "", concurrency: int = 0
) -> AsyncIterator[tuple[Instance, Link]]:
    if not find(runtimes()[runtime].interpreter):
        pytest.skip(f"this host has no interpreter for {runtime}")
    instance, connect = await start_frames(folder, runtime, files, handler=handler, concurrency=concurrency)
    try:
        yield instance, await instance.open(connect)
    finally:
        await instance.close()


async def test_bodies_stream_both_ways_at_once(bed: Bed, tmp_path: Path) -> None:
    async with bed.running(tmp_path) as (_, link):
        reply = Recorder()
        upload = link.begin(head("POST", "/echo", length=None), reply)
        upload.write(b"first")
        await reply.until(lambda: bytes(reply.body) == b"first")
        for size in (1, 100_000, 300_000):
            upload.write(b"y" * size)
            await reply.until(lambda: reply.may_write)
        upload.end()
        await reply.over()
        assert (reply.status, reply.size) == (200, 400_006)


async def test_a_stream_arrives_as_it_is_made(bed: Bed, tmp_path: Path) -> None:
    async with bed.running(tmp_path) as (_, link):
        reply = Recorder()
        link.begin(head("GET", "/ticks?n=6"), reply)
        await reply.until(lambda: reply.size > 0)
        assert not reply.done
        await reply.over()
        assert bytes(reply.body) == b"".join(b"tick %d\n" % i for i in range(6))


async def test_status_and_headers(bed: Bed, tmp_path: Path) -> None:
    async with bed.running(tmp_path) as (_, link):
        reply = await call(link, "GET", "/header", lines="X-Test: value of it\r\n")
        assert (reply.status, bytes(reply.body), reply.header("x-answer")) == (418, b"value of it", "tea")


async def test_head_has_no_body_and_the_link_goes_on(bed: Bed, tmp_path: Path) -> None:
    async with bed.running(tmp_path) as (_, link):
        for _ in range(2):
            reply = await call(link, "HEAD", "/hello")
            assert (reply.status, reply.size) == (200, 0)
            assert reply.head_ is not None
            assert reply.head_.length == len("hello HEAD")
        assert (await call(link, "HEAD", "/flood?mib=1")).size == 0
        assert bytes((await call(link, "GET", "/hello")).body) == b"hello GET"


async def test_an_error_is_the_functions_with_its_trace(plain: Bed, tmp_path: Path) -> None:
    async with plain.running(tmp_path) as (instance, link):
        reply = await call(link, "GET", "/raise")
        assert isinstance(reply.error, FunctionRaised)
        assert "a planned error" in reply.error.message
        assert (await call(link, "GET", "/hello")).status == 200
        assert any(b"a planned error" in line for _, stream, line in instance.logs if stream == "stderr")


async def test_printed_lines_belong_to_their_call(plain: Bed, tmp_path: Path) -> None:
    async with plain.running(tmp_path) as (instance, link):
        expected = set()
        for who in ("ada", "bob"):
            wanted = head("GET", f"/print?who={who}")
            reply = Recorder()
            link.begin(wanted, reply)
            await reply.over()
            expected.add((wanted.invocation, b"printed by " + who.encode()))
        assert expected <= {(invocation, line) for invocation, _, line in instance.logs}


ASGI = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        scope["state"]["name"] = "made at startup"
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("shut down", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"].upper()})
    else:
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 201, "headers": [(b"x-path", scope["raw_path"])]})
        await send({"type": "http.response.body", "body": scope["state"]["name"].encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b":" + body})
"""


async def test_an_asgi_application(tmp_path: Path) -> None:
    async with function(tmp_path, "python", {"main.py": ASGI}, concurrency=4) as (instance, link):
        reply = await call(link, "POST", "/a%20b", b"z" * 100_000)
        assert (reply.status, reply.header("x-path")) == (201, "/a%20b")
        assert bytes(reply.body) == b"made at startup:" + b"z" * 100_000
        await link.close(1)
        assert instance.process.stdout is not None
        assert instance.process.wait(5) == 0
        assert b"shut down" in instance.process.stdout.read()


def masked(opcode: int, data: bytes) -> bytes:
    key = b"\1\2\3\4"
    return bytes([0x80 | opcode, 0x80 | len(data)]) + key + bytes(b ^ key[i % 4] for i, b in enumerate(data))


async def test_a_websocket_of_an_asgi_application(tmp_path: Path) -> None:
    async with function(tmp_path, "python", {"main.py": ASGI}, concurrency=4) as (_, link):
        lines = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        reply = Recorder()
        upload = link.begin(head("GET", "/ws", lines, 0, "websocket"), reply)
        await reply.until(lambda: reply.head_ is not None or reply.done)
        assert reply.status == 101
        assert reply.header("sec-websocket-accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        data = masked(1, b"hello") + masked(9, b"?")
        for byte in data:
            upload.write(bytes([byte]))
        await reply.until(lambda: reply.size >= 10)
        assert bytes(reply.body) == b"\x81\x05HELLO\x8a\x01?"
        upload.write(masked(8, b"\x03\xe8"))
        await reply.over()
        assert bytes(reply.body).endswith(b"\x88\x02\x03\xe8")


WSGI = """
def app(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("202 Accepted", [("Content-Type", "text/plain"), ("X-Query", environ["QUERY_STRING"])])
    return [environ["PATH_INFO"].encode("latin-1"), b":", body]
"""


async def test_a_wsgi_application(tmp_path: Path) -> None:
    async with function(tmp_path, "python", {"main.py": WSGI}) as (_, link):
        reply = await call(link, "POST", "/a%20b?c=d", b"e" * 100_000, chunked=True)
        assert (reply.status, reply.header("x-query")) == (202, "c=d")
        assert bytes(reply.body) == b"/a b:" + b"e" * 100_000


PYTHON_VALUES = """
class Reply:
    status, headers, body = 203, {"x-a": "b"}, {"k": 1}

def handle(request, context):
    return {
        "/text": "t", "/bytes": b"b", "/json": {"a": [1, None]}, "/none": None, "/object": Reply(),
        "/tuple": ("x", 404), "/made": context.Response("y", 201, [("set-cookie", "1"), ("set-cookie", "2")]),
        "/number": 7, "/splits": ("x", 200, {"a": "b\\r\\nc: d"}), "/bad": object(),
        "/lines": iter([{"a": 1}, {"b": 2}]),
    }[request.path]
"""


async def test_what_a_python_handler_may_return(tmp_path: Path) -> None:
    expected = {
        "/text": (200, b"t", "text/plain; charset=utf-8"),
        "/bytes": (200, b"b", "application/octet-stream"),
        "/json": (200, b'{"a":[1,null]}', "application/json"),
        "/none": (204, b"", None),
        "/object": (203, b'{"k":1}', "application/json"),
        "/tuple": (404, b"x", "text/plain; charset=utf-8"),
        "/made": (201, b"y", "text/plain; charset=utf-8"),
        "/number": (200, b"7", "application/json"),
        "/lines": (200, b'{"a": 1}\n{"b": 2}\n'.replace(b": ", b":"), "application/x-ndjson"),
    }
    async with function(tmp_path, "python", {"main.py": PYTHON_VALUES}) as (_, link):
        for path, (status, body, kind) in expected.items():
            reply = await call(link, "GET", path)
            assert (reply.status, bytes(reply.body), reply.header("content-type")) == (status, body, kind), path
        for path in ("/splits", "/bad"):
            assert isinstance((await call(link, "GET", path)).error, FunctionRaised)


async def test_a_synchronous_handler_imports_neither_asyncio_nor_threading(tmp_path: Path) -> None:
    source = "import sys\ndef handle():\n    return sorted({'asyncio', 'threading', 'json', 're'} & set(sys.modules))\n"
    async with function(tmp_path, "python", {"only.py": source}) as (_, link):
        assert bytes((await call(link)).body) == b"[]"


async def test_a_handler_that_is_named(tmp_path: Path) -> None:
    source = "class Api:\n    @staticmethod\n    def go(request):\n        return 'named'\n"
    for index, handler in enumerate(("api.py:Api.go", "api:Api.go")):
        folder = tmp_path / str(index)
        async with function(folder, "python", {"api.py": source, "main.py": "1/0\n"}, handler) as (_, link):
            assert bytes((await call(link)).body) == b"named"


NODE_SERVERS = {
    "plain": "module.exports = (req, res) => { @ };",
    "server": "const http = require('http'); exports.server = http.createServer((req, res) => { @ });",
    "named": "exports.handler = async function (req, res) { @ };",
}
NODE_BODY = """
  let size = 0;
  req.on('data', (chunk) => { size += chunk.length; });
  req.on('end', () => {
    res.writeHead(207, { 'X-Url': req.url });
    res.write('part,');
    res.end(String(size));
  });
"""


@pytest.mark.parametrize("kind", NODE_SERVERS)
async def test_a_node_handler_of_req_and_res(kind: str, tmp_path: Path) -> None:
    source = NODE_SERVERS[kind].replace("@", NODE_BODY)
    async with function(tmp_path, "node", {"index.js": source}) as (_, link):
        for chunked in (False, True):
            reply = await call(link, "POST", "/x?y=1", b"z" * 400_000, chunked=chunked)
            assert (reply.status, reply.header("x-url"), bytes(reply.body)) == (207, "/x?y=1", b"part,400000")
        assert bytes((await call(link, "GET", "/")).body) == b"part,0"
        assert (await call(link, "HEAD", "/")).size == 0


@pytest.mark.parametrize("name", ["main.mjs", "main.js"])
async def test_a_node_module(name: str, tmp_path: Path) -> None:
    files = {name: "export async function handle(request) { return { got: await request.json() }; }\n"}
    if name == "main.js":
        files["package.json"] = '{"type": "module"}'
    async with function(tmp_path, "node", files) as (_, link):
        reply = await call(link, "POST", "/", b'{"a":1}')
        assert (bytes(reply.body), reply.header("content-type")) == (b'{"got":{"a":1}}', "application/json")


async def test_a_node_handler_that_a_cancelled_call_aborts(tmp_path: Path) -> None:
    source = """
exports.handle = (request, context) => new Promise((resolve, reject) => {
  context.signal.addEventListener('abort', () => { console.log('aborted'); reject(new Error('x')); });
});
"""
    async with function(tmp_path, "node", {"main.js": source}) as (instance, link):
        reply, gone = Recorder(), asyncio.Event()
        upload = link.begin(head(), reply)
        await reply.until(lambda: "started" in reply.events)
        upload.cancel(gone.set)
        async with asyncio.timeout(3):
            await gone.wait()
        assert any(line == b"aborted" for _, _, line in instance.logs)


RACK = """
App = lambda do |env|
  [202, { "x-path" => env["PATH_INFO"] }, [env["rack.input"].read, ":", env["HTTP_X_TEST"]]]
end
"""


async def test_a_rack_application(tmp_path: Path) -> None:
    async with function(tmp_path, "ruby", {"app.rb": RACK}) as (_, link):
        reply = await call(link, "POST", "/p?q", b"b" * 100_000, "X-Test: t\r\n", chunked=True)
        assert (reply.status, reply.header("x-path")) == (202, "/p")
        assert bytes(reply.body) == b"b" * 100_000 + b":t"
