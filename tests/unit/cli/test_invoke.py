"""`septet invoke`: the body on standard output, the id on standard error, and one line when it failed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

ID = {"Septet-Invocation-Id": "0123456789abcdef0123456789abcdef"}


def test_body_on_stdout_and_id_on_stderr(platform: Any, septet: Any, answer: Any) -> None:
    platform.call = lambda request: answer(raw=b"Hello, " + request.body, kind="text/plain", headers=ID)
    result = septet("invoke", "hello", "-d", "Ada")
    assert (result.code, result.out, result.err) == (0, "Hello, Ada", f"invocation {ID['Septet-Invocation-Id']}\n")
    (request,) = platform.requests
    assert (request.method, request.path) == ("POST", "/fn/default/hello/")
    assert request.headers["content-type"].startswith("text/plain")


def test_without_a_body_it_is_a_get(platform: Any, septet: Any) -> None:
    septet("invoke", "hello@canary", "--path", "/a/b?c=d", "-n", "shop")
    (request,) = platform.requests
    assert (request.method, request.path, request.query) == ("GET", "/fn/shop/hello@canary/a/b", {"c": "d"})


def test_json_is_recognised_and_headers_win(platform: Any, septet: Any) -> None:
    septet("invoke", "hello", "-d", '{"a": 1}')
    septet("invoke", "hello", "-d", "{not json")
    septet("invoke", "hello", "-d", "[1]", "-H", "content-type: text/csv", "-H", "X-A: b: c")
    kinds = [request.headers["content-type"] for request in platform.requests]
    assert kinds == ["application/json", "text/plain; charset=utf-8", "text/csv"]
    assert platform.requests[-1].headers["x-a"] == "b: c"


def test_a_file_and_standard_input_are_streamed(
    platform: Any, septet: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8" * 100_000)
    septet("invoke", "hello", "-d", f"@{tmp_path}/photo.jpg")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"piped")))
    result = septet("invoke", "hello", "-d", "-")
    assert platform.requests[0].body == b"\xff\xd8" * 100_000
    assert result.out == "Hello, piped"


def test_a_failed_call_is_one_line_with_everything(platform: Any, septet: Any, problem: Any) -> None:
    platform.call = lambda request: problem(
        504, "function-timeout", "the call ran longer than it may", stage="limit", limit="timeout=2s",
        hint="raise limits.timeout", invocation="abc",
    )  # fmt: skip
    result = septet("invoke", "hello")
    assert (result.code, result.out) == (7, "")
    assert result.err == (
        "error: failed in limit: the call ran longer than it may (limit: timeout=2s): raise limits.timeout"
        " (invocation abc)\n"
    )


@pytest.mark.parametrize(
    ("status", "stage", "code"), [(404, "route", 3), (401, "route", 4), (502, "user code", 7), (503, "queue", 7)]
)
def test_exit_codes_of_failed_calls(
    platform: Any, septet: Any, problem: Any, status: int, stage: str, code: int
) -> None:
    platform.call = lambda request: problem(status, "x", "why", stage=stage)
    assert septet("invoke", "hello").code == code


def test_what_the_function_itself_answers_is_printed(platform: Any, septet: Any, answer: Any) -> None:
    platform.call = lambda request: answer(status=418, raw=b"short and stout", kind="text/plain", headers=ID)
    result = septet("invoke", "hello")
    assert (result.code, result.out) == (7, "short and stout")
    assert "the function answered 418" in result.err


def test_an_answer_that_breaks_off(platform: Any, septet: Any, answer: Any) -> None:
    platform.call = lambda request: answer(raw=b"half", kind="text/plain", promise=1000)
    result = septet("invoke", "hello")
    assert (result.code, result.out) == (7, "half")
    assert "broke off" in result.err


def test_include_shows_the_head_without_control_characters(platform: Any, septet: Any, answer: Any) -> None:
    platform.call = lambda request: answer(raw=b"x", kind="text/plain", headers={"X-Evil": "\x1b[31mred"})
    result = septet("invoke", "hello", "-i")
    assert "HTTP/1.1 200 OK\n" in result.out and "X-Evil: \\x1b[31mred" in result.out
