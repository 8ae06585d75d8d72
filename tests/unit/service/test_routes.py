"""Routes: rules that can be met, and that take nothing away from others."""

from __future__ import annotations

import pytest
from service_world import World

from septet.model.errors import Conflict, InvalidInput
from septet.model.objects import RouteMatch, RouteSpec, RouteTarget
from septet.service import commands as c
from septet.service.routes import OWN_PATHS


def apply(path: str = "/*", host: str = "", namespace: str = "default", name: str = "r") -> c.ApplyRoute:
    spec = RouteSpec(match=RouteMatch(host=host, path=path), targets=(RouteTarget(function="hello"),))
    return c.ApplyRoute(namespace=namespace, name=name, spec=spec)


@pytest.mark.parametrize(
    "path", ["", "a", "/a*", "/*/a", "/{", "/{a}{b}", "/{a}/{a}", "/..", "/%2e%2e/a", "/a?b", "/a\n"]
)
async def test_paths_that_cannot_be_met_are_refused(world: World, path: str) -> None:
    await world.function()
    with pytest.raises(InvalidInput):
        await world.run(apply(path))


@pytest.mark.parametrize("word", OWN_PATHS)
async def test_no_route_shadows_the_platform(world: World, word: str) -> None:
    """After CVE-2026-50569, where a trigger could claim the router's own paths."""
    await world.function()
    for number, form in enumerate(("/{}", "/{}/*", "/{}/a", "/{}/{{x}}")):
        with pytest.raises(InvalidInput, match="platform's own"):
            await world.run(apply(form.format(word), name=str(number)))
        assert (await world.run(apply(form.format(word + "x"), name=str(number)))).action == "created"


@pytest.mark.parametrize("host", ["A.example", "a.example:80", "*", "*.", "a..b", "a b", "-a", "a/b", "*.*.a"])
async def test_hosts_are_host_names(world: World, host: str) -> None:
    await world.function()
    with pytest.raises(InvalidInput):
        await world.run(apply(host=host))


@pytest.mark.parametrize(
    ("mine", "theirs", "clash"),
    [
        (("/*", "a.example"), ("/*", "a.example"), True),
        (("/*", "a.example"), ("/x", "a.example"), True),
        (("/x/*", "a.example"), ("/y/*", "a.example"), False),
        (("/u/{id}", ""), ("/u/me", ""), True),
        (("/u/{id}", ""), ("/u/me/more", ""), False),
        (("/*", "*.a.example"), ("/*", "x.a.example"), True),
        (("/*", "x.a.example"), ("/*", "*.a.example"), True),
        (("/*", "a.example"), ("/*", "b.example"), False),
        (("/*", "a.example"), ("/*", ""), False),
    ],
)
async def test_no_route_takes_requests_from_another_namespace(
    world: World, mine: tuple[str, str], theirs: tuple[str, str], clash: bool
) -> None:
    await world.namespace("other")
    await world.function()
    await world.function(namespace="other")
    await world.run(apply(*mine))
    if clash:
        with pytest.raises(Conflict, match="another namespace"):
            await world.run(apply(*theirs, namespace="other"))
        await world.run(apply(*theirs, name="same-namespace"))
    else:
        await world.run(apply(*theirs, namespace="other"))


async def test_targets_must_be_able_to_take_something(world: World) -> None:
    await world.function()
    match = RouteMatch(path="/a")
    for targets in (
        (),
        (RouteTarget(function="hello", weight=0),),
        (RouteTarget(function="hello", weight=-1),),
        (RouteTarget(function="hello", revision="hello-00001", tag="x"),),
        (RouteTarget(function="nobody"),),
    ):
        command = c.ApplyRoute(namespace="default", name="r", spec=RouteSpec(match=match, targets=targets))
        with pytest.raises(InvalidInput):
            await world.run(command)
