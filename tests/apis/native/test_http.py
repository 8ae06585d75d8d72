"""Manners of the API: methods, heads, limits, problems."""

from __future__ import annotations

from asgi_client import AsgiClient
from service_world import World

FUNCTIONS = "/septet/v1/namespaces/default/functions"


async def test_health_and_readiness_and_metrics(world: World, api: AsgiClient) -> None:
    from septet.apis.native.app import NativeApi, NativeSettings

    assert (await api.call("GET", "/healthz", token=None)).json == {"ok": True, "reason": ""}
    settings = NativeSettings(version="1", ready=lambda: (False, "the store is being read"), public_metrics=True)
    starting = AsgiClient(NativeApi(world.service, settings), "")
    got = await starting.call("GET", "/readyz", token=None)
    assert (got.status, got.json) == (503, {"ok": False, "reason": "the store is being read"})
    assert (await starting.call("GET", "/metrics", token=None)).body == b"septet_up 1\n"
    assert (await api.call("GET", "/metrics", token=None)).status == 401
    assert (await api.call("GET", "/metrics")).headers["content-type"].startswith("text/plain")
    assert (await api.call("GET", "/septet/v1/version")).json == {"version": "0.1.0"}


async def test_head_has_the_head_of_get_and_no_body(api: AsgiClient) -> None:
    got, head = await api.call("GET", FUNCTIONS), await api.call("HEAD", FUNCTIONS)
    assert head.status == 200
    assert head.body == b""
    assert head.headers == got.headers
    assert (await api.call("HEAD", "/septet/v1/watch")).status == 200
    assert (await api.call("HEAD", f"{FUNCTIONS}/nobody")).status == 404


async def test_a_wrong_method_names_the_right_ones(api: AsgiClient) -> None:
    got = await api.call("PATCH", f"{FUNCTIONS}/x")
    assert got.status == 405
    assert got.headers["allow"] == "DELETE, GET, HEAD, PUT"
    got = await api.call("OPTIONS", FUNCTIONS, headers={"Origin": "https://evil.example"})
    assert got.status == 405
    assert not any(name.startswith("access-control") for name in got.headers)


async def test_an_unknown_path_is_a_problem(api: AsgiClient) -> None:
    for path in ("/", "/septet/v1", "/septet/v1/", f"{FUNCTIONS}/", "/septet/v2/version", "/admin"):
        got = await api.call("GET", path)
        assert (got.status, got.json["type"]) == (404, "urn:septet:error:not-found")
    assert (await api.call("GET", f"{FUNCTIONS}/%2e%2e")).status in (400, 404)


async def test_nothing_is_for_caches_or_for_sniffing(api: AsgiClient) -> None:
    made = await api.call(
        "POST", "/septet/v1/tokens", {"name": "ci", "namespaces": ["default"], "verbs": ["functions:*"]}
    )
    assert made.status == 201
    for got in (made, await api.call("GET", "/septet/v1/tokens/ci"), await api.call("GET", "/nothing")):
        assert got.headers["cache-control"] == "no-store"
        assert got.headers["x-content-type-options"] == "nosniff"


async def test_bodies_have_limits(api: AsgiClient, world: World) -> None:
    from septet.apis.native.app import BODY_MOST, NativeApi, NativeSettings

    got = await api.call("PUT", f"{FUNCTIONS}/x", b" " * (BODY_MOST + 1))
    assert got.status == 413
    assert str(BODY_MOST) in got.json["limit"]
    small = NativeSettings(version="1", ready=lambda: (True, ""), upload_limit=10)
    client = AsgiClient(NativeApi(world.service, small), world.admin)
    got = await client.call("POST", "/septet/v1/namespaces/default/blobs", b"12345678901")
    assert got.status == 413
    assert await world.blobs.digests() == []
    got = await api.call("POST", "/septet/v1/namespaces/default/blobs", b"x", headers={"Content-Encoding": "gzip"})
    assert got.status == 400


async def test_bad_bodies_are_said_to_be_so(api: AsgiClient) -> None:
    for body in (
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff",
        b'{"spec": 5}',
        b'{"spec": {"template": {"runtime": 5}}}',
        b"[" * 100_000,
        b'{"spec": {"template": {"runtime": "python", "limits": {"timeout": 1e999}}}}',
        b'{"template": {"runtime": "python"}, "resource_version": -1}',
        b'{"template": {"runtime": "python"}, "resource_version": 99999999999999999999999}',
    ):
        got = await api.call("PUT", f"{FUNCTIONS}/x", body)
        assert got.status == 400, body[:80]
        assert got.json["type"] == "urn:septet:error:invalid-input"


async def test_bad_queries_are_said_to_be_so(api: AsgiClient) -> None:
    for query in (
        "limit=x",
        "limit=0",
        "limit=1001",
        "limit=1&limit=2",
        "label=a",
        "cursor=%ff",
        "cursor=forged",
        "x=1",
    ):
        got = await api.call("GET", f"{FUNCTIONS}?{query}")
        assert got.status == 400, query
    assert (await api.call("GET", f"{FUNCTIONS}?limit=&cursor=")).status == 200


async def test_pages_hold_together(api: AsgiClient, world: World) -> None:
    for number in range(5):
        await world.function(f"f{number}")
    seen, cursor = [], ""
    while True:
        page = (await api.call("GET", f"{FUNCTIONS}?limit=2&cursor={cursor}")).json
        seen += [item["meta"]["name"] for item in page["items"]]
        cursor = page["cursor"]
        if not cursor:
            break
        await world.function("f9")
    assert seen == ["f0", "f1", "f2", "f3", "f4"]


async def test_what_breaks_inside_is_a_problem_without_its_words(api: AsgiClient, world: World) -> None:
    def broken() -> None:
        raise RuntimeError("canary")

    world.fleet.node = broken  # type: ignore[method-assign, assignment]
    got = await api.call("GET", "/septet/v1/node")
    assert got.status == 500
    assert b"canary" not in got.body
    assert got.json["type"] == "urn:septet:error:internal"
