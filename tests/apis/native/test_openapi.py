"""The OpenAPI document: what it says is what the API does."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis
from asgi_client import AsgiClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator, meta
from service_world import World

from septet.apis.native.app import NativeApi, NativeSettings
from septet.apis.native.openapi import document
from septet.apis.native.table import ROWS

# A stream that waits for events has no end that a generated request could wait for.
ENDLESS = {"/septet/v1/watch", "/septet/v1/instances/watch"}
EXAMPLES = 8


async def test_the_served_document_has_every_row(api: AsgiClient) -> None:
    served = (await api.call("GET", "/septet/v1/openapi.json")).json
    assert served["openapi"] == "3.1.0"
    listed = {(m.upper(), path) for path, methods in served["paths"].items() for m in methods}
    assert listed == {(row.method, row.path) for row in ROWS}
    names = [operation["operationId"] for methods in served["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))
    for row in ROWS:
        operation = served["paths"][row.path][row.method.lower()]
        assert (operation.get("security") == []) == (row.rule == "open")


def test_the_page_about_the_api_has_every_operation_with_its_verb() -> None:
    page = (Path(__file__).parents[3] / "docs" / "native-api.md").read_text()
    listed = re.findall(r"^\| `(\S+ \S+)` \| `?([^`|]+?)`? \|", page, re.MULTILINE)
    verbs = {"open": "none", "any token": "any token"}
    assert listed == [
        (f"{row.method} {row.path}", verbs.get(row.rule) or (row.command.verb if row.command else "")) for row in ROWS
    ]


def test_every_reference_leads_somewhere() -> None:
    made = document("1")
    text = json.dumps(made)
    for name in re.findall(r'"#/components/schemas/([^"]+)"', text):
        assert name in made["components"]["schemas"]
    for schema in made["components"]["schemas"].values():
        assert meta.is_valid(schema)


def test_generated_requests_get_answers_that_match_the_document(tmp_path: Path) -> None:
    """Schemathesis makes the requests; each answer must be listed, of its schema, and no server error."""
    made = document("0.1.0")
    schema = schemathesis.openapi.from_dict(made)
    loop = asyncio.new_event_loop()
    world = loop.run_until_complete(make_world(tmp_path))
    native = NativeSettings(version="0.1.0", ready=lambda: (True, ""), keep_alive=0.2)
    client = AsgiClient(NativeApi(world.service, native), world.admin)
    seen: Counter[str] = Counter()
    try:
        for result in schema.get_all_operations():
            operation = result.ok()  # type: ignore[union-attr]
            if operation.path in ENDLESS:
                continue
            drive(operation, made, client, loop, seen)
    finally:
        loop.run_until_complete(world.close())
        loop.close()
    assert sum(seen.values()) >= 300
    assert seen["2xx"] >= 50, seen
    assert seen["4xx"] >= 50, seen


async def make_world(folder: Path) -> World:
    world = await World(folder).open()
    function = await world.function("hello", source=await world.blob())
    await world.revision(function, 1)
    return world


def drive(
    operation: Any, made: dict[str, Any], client: AsgiClient, loop: asyncio.AbstractEventLoop, seen: Counter[str]
) -> None:
    """A few examples of one operation; half of them aim at objects that are there."""

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(), aimed=st.booleans())
    def run(case: Any, aimed: bool) -> None:
        if aimed and operation.method.upper() != "DELETE":
            known = {"ns": "default", "name": "hello", "revision": "hello-00001"}
            case.path_parameters = {k: known.get(k, v) for k, v in (case.path_parameters or {}).items()}
        kwargs = case.as_transport_kwargs(base_url="http://127.0.0.1")
        body = kwargs.get("data") if kwargs.get("data") is not None else kwargs.get("json")
        path = kwargs["url"].removeprefix("http://127.0.0.1")
        if kwargs.get("params"):
            from urllib.parse import urlencode

            path += "?" + urlencode(kwargs["params"], doseq=True)
        if "follow=true" in path.lower() or "follow=1" in path:
            return
        headers = {k: v for k, v in dict(kwargs.get("headers") or {}).items() if k.lower() == "if-match"}
        answer = loop.run_until_complete(client.call(operation.method.upper(), path, body, headers=headers))
        check(operation, made, answer, f"{operation.method} {path} {body!r}")
        seen[f"{answer.status // 100}xx"] += 1

    run()


def check(operation: Any, made: dict[str, Any], answer: Any, request: str) -> None:
    assert answer.status < 500, f"{request}: {answer.status} {answer.body!r}"
    if answer.status == 404 and b'"kind":"path"' in answer.body:
        return
    listed = made["paths"][operation.path][operation.method.lower()]["responses"]
    status = str(answer.status)
    assert status in listed, f"{request}: {status} is not in the document"
    content = listed.get(status, {}).get("content", {})
    kind = answer.headers["content-type"].partition(";")[0]
    assert kind in content, f"{request}: {kind} is not in the document"
    if kind in ("application/json", "application/problem+json") and "schema" in content.get(kind, {}):
        whole = {"components": made["components"], **content[kind]["schema"]}
        errors = list(Draft202012Validator(whole).iter_errors(answer.json))
        assert not errors, f"{request}: {errors[0].message} at {list(errors[0].instance_path)}"
