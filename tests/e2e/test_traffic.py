"""Revisions, weights, tags, rollout, rollback, and routes of their own."""

from __future__ import annotations

import json
import time
from collections import Counter

from septet_platform import Platform


def says(text: str) -> dict[str, str]:
    return {"main.py": f"def handle(request, context):\n    return {text!r} + ' ' + request.path\n"}


def wait_traffic(platform: Platform, name: str, wanted: dict[str, int], timeout: float = 15) -> None:
    end = time.monotonic() + timeout
    while True:
        status = platform.api("GET", f"/namespaces/default/functions/{name}")["status"]
        shares = {t["revision"]: t["percent"] for t in status["traffic"] if t["percent"]}
        if shares == wanted:
            return
        assert time.monotonic() < end, f"{shares} is not {wanted}: {status}"
        time.sleep(0.05)


def two_revisions(platform: Platform, name: str) -> None:
    platform.deploy(name, says("one"), access="public")
    platform.deploy(name, says("two"), access="public")


def test_weights_split_the_calls(platform: Platform) -> None:
    two_revisions(platform, "split")
    targets = [{"percent": 50, "revision": "split-00001"}, {"percent": 50, "revision": "split-00002"}]
    platform.api("PUT", "/namespaces/default/functions/split/traffic", {"targets": targets})
    wait_traffic(platform, "split", {"split-00001": 50, "split-00002": 50})
    counts = Counter(platform.call("split").text.split()[0] for _ in range(200))
    assert 60 < counts["one"] < 140
    assert counts["one"] + counts["two"] == 200


def test_shares_that_do_not_sum_to_a_hundred_change_nothing(platform: Platform) -> None:
    two_revisions(platform, "sums")
    targets = [{"percent": 50, "revision": "sums-00001"}, {"percent": 49, "revision": "sums-00002"}]
    platform.api("PUT", "/namespaces/default/functions/sums/traffic", {"targets": targets}, expect=400)
    wait_traffic(platform, "sums", {"sums-00002": 100})


def test_a_tag_has_an_address_of_its_own(platform: Platform) -> None:
    two_revisions(platform, "tagged")
    targets = [{"percent": 100, "revision": "tagged-00001"}, {"percent": 0, "revision": "tagged-00002", "tag": "next"}]
    platform.api("PUT", "/namespaces/default/functions/tagged/traffic", {"targets": targets})
    wait_traffic(platform, "tagged", {"tagged-00001": 100})
    assert platform.call("tagged").text == "one /"
    assert platform.call("tagged@next", "/x").text == "two /x"
    assert platform.call("tagged@nothing").status == 404


def test_rollback_moves_a_pointer(platform: Platform) -> None:
    two_revisions(platform, "back")
    assert platform.call("back").text == "two /"
    platform.api("POST", "/namespaces/default/functions/back/rollback", {})
    wait_traffic(platform, "back", {"back-00001": 100})
    assert platform.call("back").text == "one /"


def test_a_rollout_takes_its_time(platform: Platform) -> None:
    platform.deploy("slowly", says("one"), access="public", rollout=4.0)
    platform.apply("slowly", says("two"), access="public", rollout=4.0)
    seen: set[int] = set()
    end = time.monotonic() + 30
    while True:
        status = platform.api("GET", "/namespaces/default/functions/slowly")["status"]
        share = sum(t["percent"] for t in status["traffic"] if t["revision"] == "slowly-00002")
        seen.add(share)
        if share == 100:
            break
        assert time.monotonic() < end
        time.sleep(0.05)
    assert len([s for s in seen if 0 < s < 100]) >= 2, seen


def test_a_function_is_deleted_with_its_revisions(platform: Platform) -> None:
    two_revisions(platform, "gone")
    platform.api("DELETE", "/namespaces/default/functions/gone")
    end = time.monotonic() + 15
    while platform.request("GET", "/septet/v1/namespaces/default/functions/gone").status != 404:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert platform.call("gone").status == 404
    platform.deploy("gone", says("again"), access="public")
    assert platform.call("gone").text == "again /"


def test_routes_choose_by_host_path_and_method(platform: Platform) -> None:
    platform.deploy("site", says("site"), access="public")
    platform.deploy("shop", says("shop"), access="public")

    def route(name: str, match: dict[str, object], target: str, strip: bool = False) -> None:
        spec = {"match": match, "targets": [{"function": target}], "strip": strip}
        platform.api("PUT", f"/namespaces/default/routes/{name}", {"spec": spec})

    route("all", {"host": "example.test"}, "site")
    route("shop", {"host": "example.test", "path": "/shop/*"}, "shop", strip=True)
    route("item", {"host": "example.test", "path": "/shop/{id}", "methods": ["POST"]}, "site")

    def ask(path: str, method: str = "GET", host: str = "example.test") -> tuple[int, str]:
        got = platform.request(method, path, headers={"Host": host}, token=None)
        return got.status, got.text

    end = time.monotonic() + 10
    while ask("/shop/x", "POST")[1] != "site /shop/x":
        assert time.monotonic() < end
        time.sleep(0.05)
    assert ask("/") == (200, "site /")
    assert ask("/shop/a/b") == (200, "shop /a/b")
    assert ask("/shop/x") == (200, "shop /x")
    assert ask("/", host="other.test")[0] == 404
    assert ask("/healthz")[1] != "site /healthz"


def test_a_route_cannot_reach_another_namespace(platform: Platform) -> None:
    platform.api("PUT", "/namespaces/tenant-b", {"spec": {}})
    spec = {"match": {"host": "b.test"}, "targets": [{"function": "site"}]}
    path = "/septet/v1/namespaces/tenant-b/routes/steal"
    got = platform.request("PUT", path, json.dumps({"spec": spec}))
    assert got.status in (400, 404), got.text
