"""Every runtime, deployed and called through the platform: what it answers, how it fails, what it logs."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from programs import GO_FOLDERS, need
from septet_platform import Answer, Platform

TEXT = "text/plain; charset=utf-8"


def until(what: str, condition: Callable[[], object], timeout: float = 10) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"{what} did not come true in {timeout} s"
        time.sleep(0.05)


def failure(platform: Platform, name: str, source: Mapping[str, str | bytes], **spec: Any) -> str:
    """Deploys what cannot get ready, and returns what is said about it."""
    platform.apply(name, source, **spec)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        status = platform.api("GET", f"/namespaces/default/functions/{name}")["status"]
        for condition in status["conditions"]:
            if condition["type"] == "RevisionReady" and condition["status"] is False:
                return str(condition["message"])
        time.sleep(0.05)
    raise AssertionError(f"{name} did not fail: {status}")


def log_of(platform: Platform, name: str, answer: Answer | None = None) -> list[tuple[str, str]]:
    """(stream, text) of each line of the function, or of one call."""
    query = f"?invocation={answer.headers['septet-invocation-id']}" if answer else ""
    got = platform.request("GET", f"/septet/v1/namespaces/default/functions/{name}/logs{query}")
    return [(line["stream"], line["text"]) for line in map(json.loads, got.text.splitlines())]


def is_logged(platform: Platform, name: str, answer: Answer, stream: str, text: str) -> None:
    until(
        f"{text!r} in the call's log",
        lambda: any(s == stream and text in t for s, t in log_of(platform, name, answer)),
        5,
    )


def has_raised(answer: Answer, secret: str = "Traceback") -> None:
    """A 500 that names the call and tells the stranger nothing of the source."""
    assert (answer.status, answer.json["type"]) == (500, "urn:septet:error:function-raised"), answer
    assert answer.json["invocation"] == answer.headers["septet-invocation-id"]
    for hidden in (secret, "/function/code", "/opt/septet", '"trace"'):
        assert hidden not in answer.text, answer.text


def has_crashed(answer: Answer) -> None:
    assert (answer.status, answer.json["type"]) == (502, "urn:septet:error:function-crashed"), answer
    assert answer.json["invocation"] == answer.headers["septet-invocation-id"]


def raises_and_crashes(platform: Platform, name: str, raised: str, status: int = 200) -> None:
    """What is asked of the path /raise, /crash and /log, and that the function serves on afterwards."""
    answer = platform.call(name, "/raise")
    has_raised(answer)
    is_logged(platform, name, answer, "stderr", raised)
    has_crashed(platform.call(name, "/crash"))
    answer = platform.call(name, "/log")
    assert answer.status == status, answer
    is_logged(platform, name, answer, "stdout", "a line of this call")
    assert len(log_of(platform, name, answer)) == 1, log_of(platform, name, answer)


# -- Python

PYTHON = """import os

def handle(request, context):
    if request.path == "/raise":
        raise LookupError("python is upset")
    if request.path == "/crash":
        os._exit(3)
    if request.path == "/log":
        print("a line of this call")
    return {"name": request.query.get("name"), "body": request.text()}, 201, {"x-made-by": "python"}
"""


def test_python_a_tuple_with_status_and_headers(platform: Platform) -> None:
    platform.deploy("py", {"main.py": PYTHON})
    answer = platform.call("py", "/?name=Ada", body="hello")
    assert (answer.status, answer.json) == (201, {"name": "Ada", "body": "hello"})
    assert answer.headers["x-made-by"] == "python"
    assert answer.headers["content-type"] == "application/json"
    raises_and_crashes(platform, "py", "LookupError: python is upset", 201)


def test_python_coroutine(platform: Platform) -> None:
    source = """import asyncio

async def handle(request, context):
    await asyncio.sleep(0.01)
    print("from the coroutine")
    if request.body == b"raise":
        raise ValueError("a coroutine is upset")
    return f"awaited {request.body.decode()}"
"""
    platform.deploy("py-async", {"main.py": source})
    answer = platform.call("py-async", body="it")
    assert (answer.status, answer.text, answer.headers["content-type"]) == (200, "awaited it", TEXT)
    is_logged(platform, "py-async", answer, "stdout", "from the coroutine")
    has_raised(platform.call("py-async", body="raise"))


@pytest.mark.parametrize("word", ["def", "async def"])
def test_python_generator_streams(platform: Platform, word: str) -> None:
    name = "py-stream" if word == "def" else "py-async-stream"
    wait = "time.sleep(0.5)" if word == "def" else "await asyncio.sleep(0.5)"
    source = f"import asyncio, time\n{word} handle(request, context):\n    yield 'one,'\n    {wait}\n    yield 'two'\n"
    platform.deploy(name, {"main.py": source})
    streams(platform, name)


def streams(platform: Platform, name: str) -> None:
    """The first piece is here long before the second is made."""
    link = platform.connection()
    link.request("GET", f"/fn/default/{name}/", headers={"Authorization": f"Bearer {platform.token}"})
    got = link.getresponse()
    first = got.read1()
    began = time.monotonic()
    rest = got.read()
    waited = time.monotonic() - began
    link.close()
    assert (first, rest) == (b"one,", b"two")
    assert waited > 0.3, f"the second piece came {waited:.3f} s after the first"


def test_python_wsgi_application(platform: Platform) -> None:
    source = """def app(environ, start_response):
    start_response("418 I'm a teapot", [("Content-Type", "text/x-tea"), ("X-Path", environ["PATH_INFO"])])
    return [environ["wsgi.input"].read().upper()]
"""
    platform.deploy("py-wsgi", {"app.py": source}, handler="app:app")
    answer = platform.call("py-wsgi", "/a/b", body="tea")
    assert (answer.status, answer.text, answer.headers["content-type"]) == (418, "TEA", "text/x-tea")
    assert answer.headers["x-path"] == "/a/b"


def test_python_without_a_handler_says_so(platform: Platform) -> None:
    assert "main.py has none of handle" in failure(platform, "py-none", {"main.py": "x = 1\n"})
    said = failure(platform, "py-other", {"main.py": "x = 1\n"}, handler="main:go")
    assert "has no 'go'" in said, said


# -- Node.js

NODE = """exports.handle = async (request, context) => {
  if (request.path === "/raise") throw new RangeError("node is upset");
  if (request.path === "/crash") process.exit(3);
  if (request.path === "/log") console.log("a line of this call");
  return { status: 202, headers: { "x-made-by": "node" }, body: `promised ${await request.text()}` };
};
"""


def test_node_promise(platform: Platform) -> None:
    need("node", "nodejs")
    platform.deploy("js", {"main.js": NODE}, runtime="node")
    answer = platform.call("js", body="it")
    assert (answer.status, answer.text, answer.headers["x-made-by"]) == (202, "promised it", "node")
    raises_and_crashes(platform, "js", "RangeError: node is upset", 202)


def test_node_synchronous(platform: Platform) -> None:
    need("node", "nodejs")
    platform.deploy("js-sync", {"main.js": "module.exports = (request) => ({ path: request.path });\n"}, runtime="node")
    answer = platform.call("js-sync", "/a%20b")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert list(answer.json) == ["path"]
    assert urllib.parse.unquote(answer.json["path"]) == "/a b"


def test_node_async_iterator_streams(platform: Platform) -> None:
    need("node", "nodejs")
    source = """export async function* handle() {
  yield "one,";
  await new Promise((done) => setTimeout(done, 500));
  yield "two";
}
"""
    platform.deploy("js-stream", {"main.mjs": source}, runtime="node")
    streams(platform, "js-stream")


def test_node_request_and_response(platform: Platform) -> None:
    need("node", "nodejs")
    source = """module.exports = (req, res) => {
  if (req.url === "/raise") throw new Error("a server is upset");
  if (req.url === "/reject") return Promise.reject(new TypeError("a promise is broken"));
  console.error("to standard error");
  let size = 0;
  req.on("data", (chunk) => { size += chunk.length; });
  req.on("end", () => { res.writeHead(203, { "x-size": size }); res.write("one,"); res.end("two"); });
};
"""
    platform.deploy("js-res", {"main.js": source}, runtime="node")
    answer = platform.call("js-res", body=b"x" * 300_000)
    assert (answer.status, answer.text, answer.headers["x-size"]) == (203, "one,two", "300000")
    is_logged(platform, "js-res", answer, "stderr", "to standard error")
    has_raised(platform.call("js-res", "/raise"))
    has_raised(platform.call("js-res", "/reject"))
    assert platform.call("js-res").status == 203


UPGRADING = """const http = require("node:http");
const server = http.createServer((req, res) => res.end(`plain ${req.method}`));
server.on("upgrade", (req, socket) => {
  socket.write("HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: echo\\r\\nConnection: Upgrade\\r\\n\\r\\n");
  socket.on("data", (data) => socket.write(data.toString().toUpperCase()));
  socket.on("end", () => socket.end());
});
module.exports = server;
"""


def test_node_server_and_its_upgrade(platform: Platform) -> None:
    need("node", "nodejs")
    platform.deploy("js-server", {"server.js": UPGRADING}, runtime="node")
    assert platform.call("js-server", body="x").text == "plain POST"
    assert platform.call("js-server").text == "plain GET"
    talks_both_ways(platform, "js-server")


def talks_both_ways(platform: Platform, name: str) -> None:
    address = urllib.parse.urlsplit(platform.url)
    head = (
        f"GET /fn/default/{name}/ HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {platform.token}\r\n"
        "Connection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port), 10) as link:
        link.sendall(head.encode())
        got = b""
        while b"\r\n\r\n" not in got:
            data = link.recv(4096)
            assert data, got
            got += data
        assert got.startswith(b"HTTP/1.1 101 "), got
        for word in (b"first", b"second"):
            link.sendall(word)
            assert link.recv(4096) == word.upper()


def test_node_without_a_handler_says_so(platform: Platform) -> None:
    need("node", "nodejs")
    assert "exports neither a function nor one of" in failure(
        platform, "js-none", {"main.js": "exports.x = 1;\n"}, runtime="node"
    )


# -- Ruby

RUBY = """def handle(request, context)
  raise KeyError, "ruby is upset" if request.path == "/raise"
  exit!(3) if request.path == "/crash"
  puts "a line of this call" if request.path == "/log"
  { "said" => request.body }
end
"""


def test_ruby_method(platform: Platform) -> None:
    need("ruby", "ruby")
    platform.deploy("rb", {"main.rb": RUBY}, runtime="ruby")
    answer = platform.call("rb", body="it")
    assert (answer.status, answer.json, answer.headers["content-type"]) == (200, {"said": "it"}, "application/json")
    raises_and_crashes(platform, "rb", "ruby is upset")


RACK = """lambda do |env|
  raise "rack is upset" if env["PATH_INFO"] == "/raise"
  env["rack.errors"].puts "rack writes"
  [207, { "content-type" => "text/x-rack", "x-query" => env["QUERY_STRING"] }, [env["rack.input"].read.upcase]]
end
"""


def speaks_rack(platform: Platform, name: str) -> None:
    answer = platform.call(name, "/?a=1", body="rack")
    assert (answer.status, answer.text, answer.headers["content-type"]) == (207, "RACK", "text/x-rack"), answer
    assert answer.headers["x-query"] == "a=1"
    is_logged(platform, name, answer, "stderr", "rack writes")
    has_raised(platform.call(name, "/raise"))


def test_ruby_rack_application(platform: Platform) -> None:
    need("ruby", "ruby")
    platform.deploy("rb-rack", {"app.rb": f"App = {RACK}"}, runtime="ruby")
    speaks_rack(platform, "rb-rack")


CONFIG_RU = """require_relative "app"

class Stamp
  def initialize(app, mark:)
    @app, @mark = app, mark
  end

  def call(env)
    @app.call(env).tap { |reply| reply[1]["x-stamp"] = @mark }
  end
end

use Stamp, mark: "first-class"
run App
"""


def test_ruby_config_ru_needs_no_gem(platform: Platform) -> None:
    need("ruby", "ruby")
    platform.deploy("rb-ru", {"config.ru": CONFIG_RU, "app.rb": f"App = {RACK}"}, runtime="ruby")
    speaks_rack(platform, "rb-ru")
    assert platform.call("rb-ru").headers["x-stamp"] == "first-class"


def test_ruby_without_a_handler_says_so(platform: Platform) -> None:
    need("ruby", "ruby")
    said = failure(platform, "rb-none", {"main.rb": "X = 1\n"}, runtime="ruby")
    assert "main.rb has neither a method handle" in said, said


# -- exec

EXEC = """#!/bin/sh
case "$PATH_INFO" in
/fail) echo "reading the map" >&2; echo "there is no such road" >&2; exit 7 ;;
/kill) kill -9 $$ ;;
/sleep) sleep 300 & echo "pid-of-mine" >&2; wait ;;
esac
echo "logged aside" >&2
printf '%s %s?%s type=%s size=%s x=%s ' "$REQUEST_METHOD" "$PATH_INFO" "$QUERY_STRING" "$CONTENT_TYPE" \\
  "$CONTENT_LENGTH" "$HTTP_X_COLOUR"
printf '%s %s ' "$GATEWAY_INTERFACE" "${#SEPTET_INVOCATION_ID}"
cat
"""


def deploy_script(platform: Platform, name: str, **spec: Any) -> None:
    platform.deploy(name, {"hello.sh": EXEC}, runtime="exec", command=["./hello.sh"], **spec)


def test_exec_script_and_its_variables(platform: Platform) -> None:
    deploy_script(platform, "sh")
    headers = {"Content-Type": "text/x-mine", "X-Colour": "blue"}
    answer = platform.call("sh", "/a%20b?q=1", body="the body", headers=headers)
    assert answer.text == "POST /a b?q=1 type=text/x-mine size=8 x=blue CGI/1.1 32 the body"
    assert (answer.status, answer.headers["content-type"]) == (200, TEXT)
    is_logged(platform, "sh", answer, "stderr", "logged aside")


def test_exec_failure_gives_the_end_of_standard_error(platform: Platform) -> None:
    deploy_script(platform, "sh-fail")
    answer = platform.call("sh-fail", "/fail")
    assert (answer.status, answer.json["type"]) == (500, "urn:septet:error:function-raised"), answer
    assert "exit code 7" in answer.text and "there is no such road" in answer.text
    is_logged(platform, "sh-fail", answer, "stderr", "reading the map")
    answer = platform.call("sh-fail", "/kill")
    assert answer.status == 500 and "signal 9" in answer.text, answer
    assert platform.call("sh-fail").status == 200


def processes_with(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                words = (entry / "cmdline").read_bytes().split(b"\0")
                found += [int(entry.name)] if words[0].endswith(b"sleep") else []
        except OSError:
            continue
    return found


@pytest.mark.root
def test_exec_cancel_ends_the_whole_process_group(platform: Platform) -> None:
    deploy_script(platform, "sh-sleep", env={"MARK": "sleepers-4e1d"})
    address = urllib.parse.urlsplit(platform.url)
    head = f"GET /fn/default/sh-sleep/sleep HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {platform.token}\r\n\r\n"
    with socket.create_connection((address.hostname, address.port), 10) as link:
        link.sendall(head.encode())
        until("the script's child", lambda: processes_with("sleepers-4e1d"))
    until("its end", lambda: not processes_with("sleepers-4e1d"))
    assert platform.call("sh-sleep").status == 200


def test_exec_without_a_command_says_so(platform: Platform) -> None:
    said = failure(platform, "sh-none", {"README": "nothing\n"}, runtime="exec")
    assert "exactly one executable" in said, said
    said = failure(platform, "sh-missing", {"README": "nothing\n"}, runtime="exec", command=["./gone.sh"])
    assert "there is no file ./gone.sh" in said, said


# -- http

HTTP = """import http.server, os, sys, time

READY = time.monotonic() + float(os.environ.get("DELAY", "0"))

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/crash":
            os._exit(3)
        status = 503 if self.path == "/health" and time.monotonic() < READY else 200
        body = b"ready" if time.monotonic() >= READY else b"too early"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

print("listening", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
HTTP_SPEC: dict[str, Any] = {"runtime": "http", "command": ["python3", "server.py"]}


def test_http_server_with_a_readiness_path(platform: Platform) -> None:
    spec: dict[str, Any] = {**HTTP_SPEC, "env": {"DELAY": "0.7"}, "readiness": {"path": "/health"}}
    platform.deploy("web", {"server.py": HTTP}, **spec)
    assert platform.call("web").text == "ready"
    assert ("stdout", "listening") in log_of(platform, "web")
    has_crashed(platform.call("web", "/crash"))
    assert platform.call("web").text == "ready"


def test_http_server_that_never_listens_fails_the_deploy(platform: Platform) -> None:
    source = "import time\nprint('looking for the harbour', flush=True)\ntime.sleep(60)\n"
    began = time.monotonic()
    said = failure(platform, "web-deaf", {"server.py": source}, limits={"start_timeout": 1.0}, **HTTP_SPEC)
    assert time.monotonic() - began < 10
    assert "it accepted no connection" in said, said
    assert "looking for the harbour" in said, said


def test_http_server_that_ends_fails_the_deploy_with_its_own_words(platform: Platform) -> None:
    source = "import sys\nsys.exit('the harbour is closed')\n"
    said = failure(platform, "web-end", {"server.py": source}, **HTTP_SPEC)
    assert "the harbour is closed" in said, said


# -- binary

BINARY = """#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT")))};
    char got[65536], *answer = "HTTP/1.1 200 OK\\r\\nContent-Length: 6\\r\\n\\r\\nstatic";
    int server = socket(AF_INET, SOCK_STREAM, 0);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(server, (struct sockaddr *)&at, sizeof at) || listen(server, 16)) return 1;
    puts("the binary listens");
    fflush(stdout);
    for (;;) {
        int link = accept(server, NULL, NULL);
        while (read(link, got, sizeof got) > 0) {
            if (strncmp(got, "GET /crash ", 11) == 0) abort();
            if (write(link, answer, strlen(answer)) < 0) break;
        }
        close(link);
    }
}
"""


def test_binary(platform: Platform, tmp_path: Path) -> None:
    gcc = need("gcc", "gcc libc6-dev")
    (tmp_path / "server.c").write_text(BINARY)
    subprocess.run([gcc, "-static", "-O1", "-o", tmp_path / "server.sh", tmp_path / "server.c"], check=True)
    binary = (tmp_path / "server.sh").read_bytes()
    platform.deploy("static", {"server.sh": binary}, runtime="binary", command=["./server.sh"])
    answer = platform.call("static")
    assert (answer.status, answer.text) == (200, "static"), answer
    assert ("stdout", "the binary listens") in log_of(platform, "static")
    has_crashed(platform.call("static", "/crash"))
    assert platform.call("static").text == "static"


# -- Go

# One source and one build, for it takes long: what it serves is said by the environment.
GO = """package main

import (
	"errors"
	"io"
	"net/http"
	"os"

	"septet"
)

func Handle(context septet.Context, request *septet.Request) (any, error) {
	switch request.Path {
	case "/raise":
		return nil, errors.New("go is upset")
	case "/panic":
		panic("go is in panic")
	case "/crash":
		os.Exit(3)
	case "/log":
		context.Log("a line of this call")
	}
	text, err := request.Text()
	return map[string]string{"said": text}, err
}

func serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Path", r.URL.Path)
	w.WriteHeader(206)
	io.Copy(w, r.Body)
}

func main() {
	if os.Getenv("SERVE") == "http" {
		septet.Start(http.HandlerFunc(serve))
	}
	septet.Start(Handle)
}
"""


def test_go(platform: Platform) -> None:
    need("go", "golang-go", *GO_FOLDERS)
    platform.deploy("go", {"function.go": GO}, runtime="go", timeout=120)
    answer = platform.call("go", body="it")
    assert (answer.status, answer.json, answer.headers["content-type"]) == (200, {"said": "it"}, "application/json")
    raises_and_crashes(platform, "go", "go is upset")
    has_raised(platform.call("go", "/panic"), "goroutine")
    platform.deploy("go-http", {"function.go": GO}, runtime="go", timeout=120, env={"SERVE": "http"})
    answer = platform.call("go-http", "/a/b", body="x" * 300_000)
    assert (answer.status, answer.headers["x-path"], len(answer.body)) == (206, "/a/b", 300_000)


def test_go_as_septet_new_writes_it(platform: Platform) -> None:
    need("go", "golang-go", *GO_FOLDERS)
    folder = files("septet.cli").joinpath("templates", "go")
    source = {entry.name: entry.read_text() for entry in folder.iterdir()}
    platform.deploy("go-new", source, runtime="go", timeout=120)
    answer = platform.call("go-new", body="Ada\n")
    assert (answer.status, answer.text, answer.headers["content-type"]) == (200, "Hello, Ada!\n", TEXT)


def test_go_without_a_handler_says_so(platform: Platform) -> None:
    need("go", "golang-go", *GO_FOLDERS)
    said = failure(platform, "go-none", {"function.go": "package function\n"}, runtime="go")
    assert "neither a function Handle, nor a Handler, nor a main function" in said, said
