from __future__ import annotations

import json

from septet.model import errors
from septet.model.errors import all_errors
from septet.wire.fields import lines_are_valid
from septet.wire.problem import STATUS, render_problem, status_of


def test_every_error_of_the_tree_has_a_status_of_its_own_line() -> None:
    own = {error for error in all_errors() if error.__module__ == "septet.model.errors"}
    assert set(STATUS) == own


def test_every_error_renders() -> None:
    for cls in all_errors():
        reply = render_problem(cls("what", hint="do", limit="l 1", retry_after=0.2), "ab" * 16)
        found = json.loads(reply.body)
        assert reply.status == found["status"] == status_of(cls("x"))
        assert found["type"] == f"urn:septet:error:{cls.code}"
        assert found["retryable"] is cls.retryable
        assert (found["detail"], found["hint"], found["limit"], found["invocation"]) == ("what", "do", "l 1", "ab" * 16)
        assert lines_are_valid(reply.lines)
        assert b"Retry-After: 1\r\n" in reply.lines


def test_a_class_made_elsewhere_is_shown_as_its_ancestor() -> None:
    class TooMany(errors.QuotaExceeded):
        code = "too-many"

    assert status_of(TooMany("x")) == 429


def test_traces_and_logs_are_not_for_callers() -> None:
    error = errors.InitFailed("import failed", details={"trace": "Traceback: secret", "log": "secret", "line": 3})
    assert b"secret" not in render_problem(error, "").body
    assert json.loads(render_problem(error, "").body)["details"] == {"line": 3}


def test_what_details_hold_need_not_be_json() -> None:
    assert b"object object" in render_problem(errors.Conflict("x", details={"y": object()}), "").body


def test_allow_cannot_inject() -> None:
    reply = render_problem(errors.MethodNotAllowed("x", details={"allow": ["GET\r\nX: y"]}), "")
    assert lines_are_valid(reply.lines)
    assert reply.lines.count(b"\r\n") == 1
