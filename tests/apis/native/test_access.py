"""Every route with every kind of credential; a route without a rule fails.

After CVE-2026-46612, where a whole service had no check at all.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from asgi_client import AsgiClient
from service_world import World, instance

from septet.apis.native.row import Row
from septet.apis.native.table import ROWS
from septet.service import commands as c
from septet.service.handlers import HANDLERS

OPEN = {("GET", "/healthz"), ("GET", "/readyz")}
FOR_ANY_TOKEN = {("GET", "/septet/v1/version"), ("GET", "/septet/v1/openapi.json")}
WORDS = {
    "{ns}": "default",
    "{name}": "thing",
    "{revision}": "thing-00001",
    "{id}": "0" * 32,
    "{digest}": "sha256:" + "0" * 64,
}
BODIES: dict[str, Any] = {
    "TokenBody": {"name": "stolen", "namespaces": ["default"], "verbs": ["functions:read"]},
    "FunctionBody": {"template": {"runtime": "python"}},
    "NewNamespaceBody": {"name": "stolen"},
    "RouteBody": {"match": {}, "targets": [{"function": "thing"}]},
    "SecretBody": {"data": {"k": "dg=="}},
    "TrafficBody": {"targets": [{"percent": 100}]},
}


def concrete(row: Row) -> str:
    path = row.path
    for word, value in WORDS.items():
        path = path.replace(word, value)
    assert "{" not in path, f"{row.path} has a parameter that this test does not know"
    return path


def body_of(row: Row) -> object:
    return b"bytes" if row.upload else BODIES.get(row.body.__name__, {}) if row.body else None


def ids(rows: tuple[Row, ...]) -> list[str]:
    return [f"{row.method} {row.path}" for row in rows]


def test_every_row_has_a_rule_and_the_exceptions_are_these() -> None:
    assert {(r.method, r.path) for r in ROWS if r.rule == "open"} == OPEN
    assert {(r.method, r.path) for r in ROWS if r.rule == "any token"} == FOR_ANY_TOKEN
    for row in ROWS:
        if row.rule == "token":
            assert row.command in HANDLERS and row.command is not None and row.command.verb, row
    assert len({(r.method, r.path) for r in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=ids(ROWS))
async def test_who_may_not_is_refused_and_nothing_changes(api: AsgiClient, world: World, row: Row) -> None:
    await world.namespace("other")
    now = world.clock.wall()
    expired = await world.token("expired", ("*",), ("*",), now - 1)
    elsewhere = await world.token("elsewhere", ("other",), ("*",))
    weak = await world.token("weak", ("*",), ("nothing:read",))
    deleted = await world.token("deleted", ("*",), ("*",))
    await world.run(c.DeleteToken(name="deleted"))
    before = await world.store.version()
    blobs = await world.blobs.digests()

    async def status(**credential: Any) -> int:
        return (await api.call(row.method, concrete(row), body_of(row), **credential)).status

    if row.rule == "open":
        assert await status(token=None) == 200
        return
    for bad in ("sept_" + "A" * 43, expired, deleted, "x", world.admin[:-1], world.admin.upper(), "admin"):
        assert await status(token=bad) == 401
    assert await status(token=None) == 401
    for line in ("Basic YWRtaW46YWRtaW4=", f"Token {world.admin}", "Bearer", "\xff", f"Bearer {world.admin} x"):
        assert await status(token=None, headers={"Authorization": line}) == 401
    assert (await api.call(row.method, concrete(row) + f"?token={world.admin}", token=None)).status == 401
    if row.rule == "any token":
        assert await status(token=weak) == 200
        return
    assert await status(token=weak) == 403
    if row.command is not None and row.command.reach == "visible":
        if row.path.endswith("}"):
            assert await status(token=elsewhere) == 404
    else:
        assert await status(token=elsewhere) == 403
    assert await world.store.version() == before
    assert await world.blobs.digests() == blobs


@pytest.mark.parametrize("row", ROWS, ids=ids(ROWS))
async def test_the_very_verb_is_enough(api: AsgiClient, world: World, row: Row) -> None:
    """The control: the refusals above are for the credential, not for the request."""
    if row.command is None or row.form == "lines":
        return
    namespaces = ("*",) if row.command.reach != "namespace" else ("default",)
    extra = ("functions:read",) if row.body is not None and row.body.__name__ == "TokenBody" else ()
    token = await world.token("exact", namespaces, (row.command.verb, *extra))
    got = await api.call(row.method, concrete(row), body_of(row), token=token)
    assert got.status not in (401, 403, 405), got.body


async def test_early_refusals_do_not_read_the_body(api: AsgiClient, world: World) -> None:
    weak = await world.token("weak", ("*",), ("functions:read",))
    got = await api.call("PUT", "/septet/v1/namespaces/default/functions/x", b"no json at all", token=weak)
    assert got.status == 403


async def test_lists_of_namespaces_and_tokens_show_what_the_caller_reaches(api: AsgiClient, world: World) -> None:
    await world.namespace("mine")
    await world.namespace("theirs")
    mine = await world.token("mine-all", ("mine",), ("*",))
    await world.token("theirs-all", ("theirs",), ("*",))
    await world.token("both", ("mine", "theirs"), ("*",))
    got = await api.call("GET", "/septet/v1/namespaces", token=mine)
    assert [item["meta"]["name"] for item in got.json["items"]] == ["mine"]
    got = await api.call("GET", "/septet/v1/tokens", token=mine)
    assert [item["meta"]["name"] for item in got.json["items"]] == ["mine-all"]
    assert (await api.call("DELETE", "/septet/v1/tokens/theirs-all", token=mine)).status == 404
    assert (await api.call("GET", "/septet/v1/tokens/both", token=mine)).status == 404


async def test_behind_an_inner_gateway_no_token_reaches_another_namespace(api: AsgiClient, world: World) -> None:
    await world.namespace("other")
    state = {"instance": instance("i1", "other", "f", "f-00001")}
    assert (await api.call("GET", "/septet/v1/namespaces/other/functions", state=state)).status == 200
    assert (await api.call("GET", "/septet/v1/namespaces/default/functions", state=state)).status == 403
    for path in ("node", "audit", "doctor"):
        assert (await api.call("GET", f"/septet/v1/{path}", state=state)).status == 403
    elsewhere = await world.token("elsewhere", ("default",), ("*",))
    for namespace, path in itertools.product(("default", "other"), ("functions", "secrets")):
        got = await api.call("GET", f"/septet/v1/namespaces/{namespace}/{path}", token=elsewhere, state=state)
        assert got.status in (401, 403)


async def test_the_host_line_decides_nothing(api: AsgiClient) -> None:
    """After CVE-2026-48710: text in Host must not move a request onto another path."""
    for host in ("x/septet/v1/namespaces", "x?y", "x#y", "a@b", "\\", "/healthz#"):
        for path in ("/septet/v1/audit", "/septet/v1/namespaces/default/secrets"):
            got = await api.call("GET", path, token=None, headers={"Host": host})
            assert got.status == 401


async def test_requests_without_a_good_credential_are_audited_but_do_not_fill_the_log(
    api: AsgiClient, world: World
) -> None:
    for _ in range(20):
        await api.call("GET", "/septet/v1/audit", token="sept_" + "A" * 43)
    entries = await world.audit()
    assert [(e["who"], e["remote"], e["outcome"]) for e in entries] == [("anonymous", "192.0.2.7", "unauthenticated")]
    world.clock.time += 11
    await api.call("DELETE", "/septet/v1/namespaces/default/functions/x", token=None)
    assert (await world.audit())[0]["what"] == "DELETE /septet/v1/namespaces/{ns}/functions/{name}"


async def test_the_audit_log_is_read_by_pages(api: AsgiClient, world: World) -> None:
    for number in range(3):
        await world.function(f"f{number}")
    await world.audit()
    first = (await api.call("GET", "/septet/v1/audit?limit=2")).json["items"]
    assert [entry["name"] for entry in first] == ["f2", "f1"]
    rest = (await api.call("GET", f"/septet/v1/audit?limit=2&before={first[-1]['id']}")).json["items"]
    assert [entry["name"] for entry in rest] == ["f0"]
