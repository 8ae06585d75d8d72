"""The other client verbs: what they send, what they show."""

from __future__ import annotations

import io
import json
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

FUNCTIONS = "/septet/v1/namespaces/default/functions"


@pytest.fixture
def hello(platform: Any, septet: Any, project: Path) -> None:
    """One deployed function."""
    assert septet("deploy").code == 0


def test_list_in_every_format(platform: Any, septet: Any, hello: None) -> None:
    table = septet("list").out.splitlines()
    assert table[0].split() == ["NAME", "RUNTIME", "READY", "SERVES", "ACCESS", "AGE"]
    assert table[1].split()[:5] == ["hello", "python", "yes", "hello-00001", "token"]
    assert septet("list", "-o", "name").out == "hello\n"
    as_json = json.loads(septet("list", "-o", "json").out)
    assert as_json[0]["meta"]["name"] == "hello"
    assert yaml.safe_load(septet("list", "-o", "yaml").out) == as_json


def test_list_of_nothing_is_no_output(platform: Any, septet: Any) -> None:
    result = septet("list", "-l", "team=a")
    assert (result.code, result.out) == (0, "") and "septet new" in result.err
    assert platform.requests[0].query == {"label": "team=a"}
    assert json.loads(septet("list", "-o", "json").out) == []


def test_list_of_all_namespaces(platform: Any, septet: Any, hello: None) -> None:
    platform.objects["namespaces"] = {name: {"meta": {"name": name}} for name in ("default", "shop")}
    lines = septet("list", "-A").out.splitlines()
    assert lines[0].startswith("NAMESPACE") and lines[1].startswith("default")


def test_describe_answers_the_question_first(platform: Any, septet: Any, hello: None) -> None:
    out = septet("describe", "hello").out
    assert out.splitlines()[0] == "hello: can it be called now? yes, warm"
    assert "limits:     best effort" in out and "hello-00001  ready  100%" in out
    assert json.loads(septet("describe", "hello", "-o", "json").out)["callable"] is True


def test_logs(platform: Any, septet: Any, hello: None) -> None:
    result = septet("logs", "hello", "--tail", "5", "--since", "1m", "-f", "--invocation", "abc")
    assert "two\\x1b[31m" in result.out and "\x1b" not in result.out
    query = platform.asked("GET", f"{FUNCTIONS}/hello/logs")[0].query
    assert (query["tail"], query["follow"], query["invocation"]) == ("5", "true", "abc") and float(query["since"]) > 1e9
    assert json.loads(septet("logs", "hello", "-o", "json").out.splitlines()[0])["text"] == "one"


def test_a_stream_may_end_with_an_error(platform: Any, septet: Any, answer: Any, hello: None) -> None:
    lines = b'{"at": 1, "instance": "i", "stream": "stdout", "text": "one"}\n\n'
    lines += (
        b'{"error": {"type": "urn:septet:error:expired", "status": 410, "detail": "too old", "hint": "list again"}}\n'
    )
    platform.overrides["GET", f"{FUNCTIONS}/hello/logs"] = answer(raw=lines, kind="application/x-ndjson")
    result = septet("logs", "hello")
    assert (result.code, result.err) == (5, "error: too old: list again\n") and "one" in result.out


def test_delete_wants_yes_without_a_terminal(platform: Any, septet: Any, hello: None) -> None:
    refused = septet("delete", "hello")
    assert (refused.code, "--yes" in refused.err, "hello" in platform.functions) == (2, True, True)
    assert septet("delete", "hello", "--yes").code == 0
    assert septet("delete", "hello", "--yes").code == 3
    assert septet("delete", "hello", "--yes", "--ignore-missing").code == 0


def test_scale(platform: Any, septet: Any, hello: None) -> None:
    result = septet("scale", "hello", "--min", "1", "--max", "4", "--window", "2m", "-o", "json")
    assert platform.asked("PUT", f"{FUNCTIONS}/hello/scale")[0].json() == {"min": 1, "max": 4, "window": 120.0}
    assert json.loads(result.out)["max"] == 4
    assert septet("scale", "hello", "--min", "5", "--max", "4").code == 2


def test_traffic(platform: Any, septet: Any, hello: None) -> None:
    result = septet("traffic", "hello", "hello-00001=90", "latest=10", "--tag", "new=latest", "--rollout", "5m")
    sent = platform.asked("PUT", f"{FUNCTIONS}/hello/traffic")[0].json()
    assert sent == {
        "targets": [
            {"revision": "hello-00001", "percent": 90, "tag": ""},
            {"revision": "", "percent": 10, "tag": ""},
            {"revision": "", "percent": 0, "tag": "new"},
        ],
        "rollout": 300.0,
    }
    assert result.out.splitlines()[2].split() == ["latest", "10%"]


@pytest.mark.parametrize(
    "words", [["a=50"], ["a=50", "b=51"], ["a"], ["=100"], ["a=x"], ["--tag", "t=a"], ["a=100", "--tag", "t"]]
)
def test_traffic_that_makes_no_sense(platform: Any, septet: Any, hello: None, words: list[str]) -> None:
    assert septet("traffic", "hello", *words).code == 2
    assert platform.asked("PUT", f"{FUNCTIONS}/hello/traffic") == []


def test_rollback(platform: Any, septet: Any, hello: None) -> None:
    assert septet("rollback", "hello").out == "hello-00001\n"
    septet("rollback", "hello", "--to", "hello-00001")
    assert [r.json() for r in platform.asked("POST", f"{FUNCTIONS}/hello/rollback")] == [
        {},
        {"revision": "hello-00001"},
    ]


def test_revisions_newest_first(platform: Any, septet: Any, hello: None, project: Path) -> None:
    (project / "src" / "more.py").write_text("x = 1\n")
    assert septet("deploy").code == 0
    lines = septet("revisions", "hello").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["hello-00002", "hello-00001"]
    assert lines[1].split()[1:3] == ["ready", "100%"]


def test_secrets_go_in_and_are_shown_by_key(
    platform: Any, septet: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ca.pem").write_bytes(b"\x00pem\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"pass=word\n")))
    result = septet("secret", "set", "db", "user=app", "password=-", "--from-file", f"ca={tmp_path}/ca.pem")
    assert result.code == 0 and "=word" not in result.err + result.out
    (put,) = platform.asked("PUT", "/septet/v1/namespaces/default/secrets/db")
    assert put.json() == {"data": {"user": "YXBw", "password": "cGFzcz13b3Jk", "ca": "AHBlbQo="}}
    assert septet("secret", "list").out.splitlines()[1].startswith("db    ca, password, user")
    assert septet("secret", "set", "db").code == 2
    assert septet("secret", "set", "db", "a=-", "b=-").code == 2
    assert septet("secret", "delete", "db", "--yes").code == 0


def test_namespaces(platform: Any, septet: Any) -> None:
    assert septet("namespace", "create", "shop", "--memory", "512").code == 0
    assert platform.requests[0].json() == {"spec": {"quota": {"memory": 512}}}
    assert septet("namespace", "list").out.splitlines()[1].split()[:3] == ["shop", "memory", "512"]
    assert septet("namespace", "delete", "shop", "--yes").code == 0


def test_a_new_token_is_the_only_output(platform: Any, septet: Any) -> None:
    result = septet("token", "create", "ci", "--allow-namespace", "shop", "--verb", "functions:*", "--expires", "1h")
    assert result.out == "sept_new\n"
    sent = platform.requests[0].json()
    assert (sent["name"], sent["namespaces"], sent["verbs"]) == ("ci", ["shop"], ["functions:*"])
    assert sent["expires_at"] > 1e9
    assert septet("token", "list").code == 0
    assert septet("token", "delete", "ci", "--yes").code == 3


def test_version_with_and_without_a_platform(platform: Any, septet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "server 9.9.9" in septet("version").out
    platform.close()
    alone = septet("version")
    assert (alone.code, alone.out.startswith("client ")) == (0, True) and "cannot reach" in alone.err


def test_backup_appears_whole_or_not_at_all(platform: Any, septet: Any, answer: Any, tmp_path: Path) -> None:
    platform.overrides["POST", "/septet/v1/backup"] = answer(raw=b"tar" * 100_000, kind="application/x-tar")
    result = septet("backup", "--to", "b.tar")
    assert (result.code, result.out) == (0, "b.tar\n")
    assert (tmp_path / "b.tar").read_bytes() == b"tar" * 100_000
    assert stat.S_IMODE((tmp_path / "b.tar").stat().st_mode) == 0o600
    assert septet("backup", "--to", "b.tar").code == 5
    platform.overrides["POST", "/septet/v1/backup"] = answer(raw=b"tar", kind="application/x-tar", promise=1000)
    assert septet("backup", "--to", "c.tar").code == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.tar"]
    platform.overrides["POST", "/septet/v1/backup"] = answer(raw=b"tar", kind="application/x-tar")
    assert septet("backup", "--to", "-", "--with-key").out == "tar"
    assert [r.query for r in platform.asked("POST", "/septet/v1/backup")] == [{}, {}, {"key": "true"}]


def test_completion_scripts(septet: Any) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_SEPTET_COMPLETE" in septet("completion", shell).out


def test_function_names_complete(platform: Any, hello: None) -> None:
    from click.shell_completion import ShellComplete

    from septet.cli.main import cli

    complete = ShellComplete(cli, {}, "septet", "_SEPTET_COMPLETE")
    assert [item.value for item in complete.get_completions(["describe"], "he")] == ["hello"]
    platform.close()
    assert complete.get_completions(["describe"], "he") == []


def test_a_wrong_verb_names_the_right_one(septet: Any) -> None:
    result = septet("lsit")
    assert (result.code, "did you mean 'list'?" in result.err) == (2, True)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), ("30s", 30), ("1h30m", 5400), ("250ms", 0.25), ("2d", 172800)]
)
def test_durations(text: str, seconds: float) -> None:
    from septet.cli.options import parse_duration

    assert parse_duration(text) == seconds


def test_colour_is_for_terminals_and_not_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    from septet.cli.output import colour_wanted

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert colour_wanted(Terminal()) and not colour_wanted(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colour_wanted(Terminal())
