"""Apply, read, change and delete functions over the API."""

from __future__ import annotations

from asgi_client import AsgiClient
from service_world import World, instance

PATH = "/septet/v1/namespaces/default/functions/hello"
SPEC = {"template": {"runtime": "python", "env": {"A": "1"}}}


async def test_apply_get_list_delete(api: AsgiClient) -> None:
    blob = await api.call("POST", "/septet/v1/namespaces/default/blobs", b"the archive")
    assert blob.status == 201
    assert blob.json["size"] == 11
    spec = {"template": {"runtime": "python", "source": blob.json["digest"]}}
    created = await api.call("PUT", PATH, {"spec": spec, "labels": {"team": "a"}})
    assert (created.status, created.json["action"]) == (200, "created")
    got = await api.call("GET", PATH)
    assert got.json == created.json["function"]
    assert got.json["kind"] == "Function"
    assert got.headers["etag"] == f'"{got.json["meta"]["resource_version"]}"'
    listed = await api.call("GET", "/septet/v1/namespaces/default/functions?label=team=a")
    assert listed.json["items"] == [got.json]
    assert (await api.call("GET", "/septet/v1/namespaces/default/functions?label=team=b")).json["items"] == []
    assert (await api.call("DELETE", PATH)).status == 200
    assert (await api.call("GET", PATH)).status == 404


async def test_both_shapes_of_a_body_mean_the_same(api: AsgiClient) -> None:
    flat = await api.call("PUT", PATH, {**SPEC, "access": "public", "labels": {"a": "b"}})
    nested = await api.call("PUT", PATH, {"spec": {**SPEC, "access": "public"}, "labels": {"a": "b"}})
    assert flat.json["action"] == "created"
    assert nested.json["action"] == "unchanged"


async def test_the_plan_names_what_changes_and_writes_nothing(api: AsgiClient) -> None:
    plan = await api.call("PUT", f"{PATH}?dry_run=true", SPEC)
    assert plan.json["action"] == "created"
    assert {"field": "env.A", "old": None, "new": "1"} in plan.json["changes"]
    assert (await api.call("GET", PATH)).status == 404
    await api.call("PUT", PATH, SPEC)
    plan = await api.call("PUT", f"{PATH}?dry_run=true", {"template": {"runtime": "node", "env": {"B": ""}}})
    assert plan.json["action"] == "updated"
    assert plan.json["changes"] == [
        {"field": "env.A", "old": "1", "new": None},
        {"field": "env.B", "old": None, "new": ""},
        {"field": "runtime", "old": "python", "new": "node"},
    ]
    assert (await api.call("PUT", PATH, SPEC)).json["action"] == "unchanged"


async def test_if_match_refuses_what_has_moved_on(api: AsgiClient) -> None:
    tag = (await api.call("PUT", PATH, SPEC)).headers["etag"]
    moved = await api.call("PUT", PATH, {"template": {"runtime": "node"}}, headers={"If-Match": tag})
    assert moved.status == 200
    late = await api.call("PUT", PATH, SPEC, headers={"If-Match": tag})
    assert late.status == late.json["status"] == 412
    assert (await api.call("DELETE", PATH, headers={"If-Match": tag})).status == 412
    version = int(tag.strip('"'))
    in_body = await api.call("PUT", PATH, {**SPEC, "resource_version": version})
    assert in_body.status == 409
    assert (await api.call("DELETE", PATH, headers={"If-Match": moved.headers["etag"]})).status == 200


async def test_an_unknown_key_is_named_with_the_nearest_right_one(api: AsgiClient) -> None:
    got = await api.call("PUT", PATH, {"template": {"runtime": "python", "limits": {"memry": 5}}})
    assert got.status == 400
    assert got.headers["content-type"] == "application/problem+json"
    assert got.json["detail"] == "unknown key 'memry' in template.limits"
    assert got.json["hint"] == "did you mean 'memory'?"
    got = await api.call("PUT", f"{PATH}?dryrun=1", SPEC)
    assert got.json["hint"] == "did you mean 'dry_run'?"


async def test_traffic_rollback_and_scale(api: AsgiClient, world: World) -> None:
    await api.call("PUT", PATH, SPEC)
    function = await world.function(env={"A": "1"})
    await world.revision(function, 1)
    await world.revision(function, 2)
    bad = await api.call("PUT", f"{PATH}/traffic", {"targets": [{"percent": 90}]})
    assert "add up to 90" in bad.json["detail"]
    targets = [{"percent": 90, "revision": "hello-00001"}, {"percent": 10}, {"tag": "new", "revision": "hello-00002"}]
    split = await api.call("PUT", f"{PATH}/traffic", {"targets": targets, "rollout": 5})
    assert split.status == 200
    assert split.json["spec"]["rollout"] == 5
    back = await api.call("POST", f"{PATH}/rollback", {})
    assert back.json["spec"]["traffic"] == [
        {"percent": 100, "revision": "hello-00001", "tag": ""},
        {"percent": 0, "revision": "hello-00002", "tag": "new"},
    ]
    scaled = await api.call("PUT", f"{PATH}/scale", {"min": 1, "max": 3})
    assert scaled.json["spec"]["template"]["scale"]["max"] == 3
    assert scaled.json["spec"]["template"]["scale"]["window"] == 60
    assert (await api.call("PUT", f"{PATH}/scale", {"min": 9})).status == 400


async def test_the_summary_answers_first_whether_it_can_be_called(api: AsgiClient, world: World) -> None:
    function = await world.function()
    summary = (await api.call("GET", f"{PATH}/summary")).json
    assert (summary["callable"], summary["answer"]) == (
        False,
        "no, because its first revision has not been made yet",
    )
    await world.revision(function, 1)
    cold = (await api.call("GET", f"{PATH}/summary")).json
    assert cold["callable"]
    assert cold["answer"].startswith("yes, cold")
    world.fleet.hindrance = "the node's memory is taken"
    assert (await api.call("GET", f"{PATH}/summary")).json["answer"] == "no, because the node's memory is taken"
    world.fleet.running.append(instance("i1", "default", "hello", "hello-00001"))
    warm = (await api.call("GET", f"{PATH}/summary")).json
    assert warm["answer"] == "yes, warm: 1 instance is ready"
    assert warm["urls"] == ["http://127.0.0.1:8080/fn/default/hello/"]
    assert warm["limits"] == "hard"
    assert (await api.call("GET", f"{PATH}/instances")).json["items"][0]["id"] == "i1"


async def test_revisions_and_their_logs(api: AsgiClient, world: World) -> None:
    function = await world.function()
    log = await world.blobs.put_bytes(b"installing\ndone\n")
    await world.revision(function, 1, build_log=log)
    await world.revision(function, 2)
    got = await api.call("GET", f"{PATH}/revisions")
    assert [item["meta"]["name"] for item in got.json["items"]] == ["hello-00001", "hello-00002"]
    text = await api.call("GET", f"{PATH}/revisions/hello-00001/build-log")
    assert text.body == b"installing\ndone\n"
    assert text.headers["content-type"].startswith("text/plain")
    assert (await api.call("DELETE", f"{PATH}/revisions/hello-00002")).status == 409
    assert (await api.call("DELETE", f"{PATH}/revisions/hello-00001")).status == 200
    assert (await api.call("GET", f"{PATH}/revisions/hello-00001")).status == 404
