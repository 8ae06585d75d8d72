"""`septet deploy` against the fake platform: plan, upload, apply, wait."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FUNCTION = "/septet/v1/namespaces/default/functions/hello"


def test_creates_uploads_waits_and_says_the_url(platform: Any, septet: Any, project: Path) -> None:
    platform.phases = ["building", "starting", "ready"]
    platform.build_log = "installing\ndone\n"
    result = septet("deploy")
    assert result.code == 0, result.err
    assert f"{platform.url}/fn/default/hello" in result.out
    assert "+ create hello" in result.err and "  | installing" in result.err and "hello-00001 is starting" in result.err
    assert len(platform.asked("POST", "/septet/v1/namespaces/default/blobs")) == 1


def test_a_second_deploy_changes_and_uploads_nothing(platform: Any, septet: Any, project: Path) -> None:
    septet("deploy")
    before = len(platform.asked("PUT", FUNCTION))
    result = septet("deploy")
    assert (result.code, "= unchanged hello" in result.err) == (0, True)
    assert len(platform.asked("POST", "/septet/v1/namespaces/default/blobs")) == 1
    assert [r.query for r in platform.asked("PUT", FUNCTION)[before:]] == [{"dry_run": "true"}]


def test_a_change_of_the_spec_alone_uploads_nothing(platform: Any, septet: Any, project: Path) -> None:
    septet("deploy")
    with (project / "septet.yaml").open("a") as out:
        out.write("    env: {GREETING: hi}\n")
    result = septet("deploy")
    assert result.code == 0
    assert "~ update hello" in result.err and "template.env: {} -> {'GREETING': 'hi'}" in result.err
    assert len(platform.asked("POST", "/septet/v1/namespaces/default/blobs")) == 1


def test_dry_run_prints_the_plan_as_data_and_sends_nothing_else(platform: Any, septet: Any, project: Path) -> None:
    result = septet("deploy", "--dry-run")
    assert (result.code, result.out) == (0, "+ create hello\n")
    assert {(r.method, r.query.get("dry_run")) for r in platform.requests} == {("PUT", "true")}


def test_a_failed_build_ends_with_its_log_and_code_1(platform: Any, septet: Any, project: Path) -> None:
    platform.phases = ["failed"]
    platform.build_log = "".join(f"line {n}\n" for n in range(100))
    result = septet("deploy")
    assert result.code == 1
    assert "line 99" in result.err and "line 69" not in result.err
    last = result.err.strip().splitlines()[-1]
    assert last.startswith("error: hello: hello-00001 did not become ready: build-failed: pip ended with 1")


def test_waiting_ends(platform: Any, septet: Any, project: Path) -> None:
    platform.phases = ["starting"]
    result = septet("deploy", "--timeout", "300ms")
    assert result.code == 6
    assert "still: hello-00001 is starting" in result.err


def test_no_wait_does_not_look(platform: Any, septet: Any, project: Path) -> None:
    platform.phases = ["starting"]
    assert septet("deploy", "--no-wait").code == 0
    assert platform.asked("GET", FUNCTION) == []


def test_one_refused_function_does_not_stop_the_others(platform: Any, septet: Any, project: Path) -> None:
    (project / "septet.yaml").write_text(
        "functions:\n  bad: {runtime: python, source: ''}\n  hello: {runtime: python, source: ./src}\n"
    )
    result = septet("deploy")
    assert result.code == 1
    assert "error: bad: no blob" in result.err
    assert "hello" in platform.functions and "bad" not in platform.functions


def test_from_flags(platform: Any, septet: Any, project: Path) -> None:
    result = septet(
        "deploy", "api", "--runtime", "http", "--source", "src", "--command", "python3 'my server.py'",
        "--env", "A=b=c", "--secret", "db", "--memory", "256", "--min", "1", "--max", "4", "--public", "-o", "json",
    )  # fmt: skip
    assert result.code == 0, result.err
    spec = platform.functions["api"]["spec"]
    template = spec["template"]
    assert (template["runtime"], template["command"]) == ("http", ["python3", "my server.py"])
    assert (template["env"], template["limits"]["memory"], spec["access"]) == ({"A": "b=c"}, 256, "public")
    assert (template["scale"]["min"], template["scale"]["max"], template["secrets"][0]["name"]) == (1, 4, "db")
    assert json.loads(result.out)[0]["action"] == "created"


def test_flags_of_one_function_need_runtime(platform: Any, septet: Any, project: Path) -> None:
    result = septet("deploy", "--memory", "256")
    assert (result.code, "--memory goes with --runtime" in result.err) == (2, True)
    assert platform.requests == []


def test_names_choose_from_the_file(platform: Any, septet: Any, project: Path) -> None:
    (project / "septet.yaml").write_text(
        "functions:\n  a: {runtime: python, source: src}\n  b: {runtime: python, source: src}\n"
    )
    assert septet("deploy", "b").code == 0
    assert list(platform.functions) == ["b"]
    missing = septet("deploy", "c")
    assert (missing.code, "there are: a, b" in missing.err) == (2, True)


@pytest.mark.parametrize(("flag", "space"), [([], "shop"), (["-n", "other"], "other")])
def test_the_files_namespace_holds_unless_one_is_named(
    platform: Any, septet: Any, project: Path, flag: list[str], space: str
) -> None:
    (project / "septet.yaml").write_text("namespace: shop\nfunctions:\n  hello: {runtime: python, source: src}\n")
    assert septet("deploy", *flag).code == 0
    assert platform.functions["hello"]["meta"]["namespace"] == space


def test_routes_follow_the_functions(platform: Any, septet: Any, project: Path) -> None:
    (project / "septet.yaml").write_text(
        "routes:\n  front: {host: example.com, function: hello}\nfunctions:\n  hello: {runtime: python, source: src}\n"
    )
    assert septet("deploy").code == 0
    puts = [r for r in platform.requests if r.method == "PUT" and not r.query]
    assert [r.path.rsplit("/", 2)[1] for r in puts] == ["functions", "routes"]
    assert puts[-1].json()["spec"]["targets"] == [{"function": "hello", "weight": 100, "revision": "", "tag": ""}]


def test_no_file(platform: Any, septet: Any, tmp_path: Path) -> None:
    result = septet("deploy")
    assert (result.code, "there is no septet.yaml" in result.err) == (2, True)
