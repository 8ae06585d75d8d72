from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from septet.model.errors import InvalidInput
from septet.model.meta import Meta
from septet.model.objects import Route, RouteMatch, RouteSpec, RouteTarget
from septet.policy import routes

_names = itertools.count()


def route(path: str = "/*", host: str = "", *methods: str, created: float = 0.0, name: str = "") -> Route:
    match = RouteMatch(host=host, path=path, methods=methods)
    meta = Meta(name=name or f"route-{next(_names)}", created_at=created)
    return Route(meta=meta, spec=RouteSpec(match=match, targets=(RouteTarget(function="f"),)))


def winner(there: list[Route], host: str, path: str, method: str = "GET") -> Route | None:
    found = routes.find(routes.table(there), host, path, method)
    return found.route if isinstance(found, routes.Match) else None


def test_exact_host_before_suffix_before_none() -> None:
    exact, suffix, longer, none = (
        route(host="a.example.com"),
        route(host="*.com"),
        route(host="*.example.com"),
        route(),
    )
    there = [none, suffix, longer, exact]
    assert winner(there, "a.example.com", "/") is exact
    assert winner(there, "A.Example.COM.:8080", "/") is exact
    assert winner(there, "b.example.com", "/") is longer
    assert winner(there, "x.com", "/") is suffix
    assert winner(there, "x.org", "/") is none
    assert winner(there, "com", "/") is none, "a suffix wants a label before it"
    assert winner([suffix], "xcom", "/") is None


def test_exact_path_before_parameters_before_prefix() -> None:
    exact, parameters, prefix, root = route("/u/me"), route("/u/{id}"), route("/u/*"), route("/*")
    there = [root, prefix, parameters, exact]
    assert winner(there, "h", "/u/me") is exact
    assert winner(there, "h", "/u/you") is parameters
    assert winner(there, "h", "/u/you/more") is prefix
    assert winner(there, "h", "/other") is root


def test_longer_before_shorter_and_literals_before_parameters() -> None:
    short, long, first, second = route("/a/*"), route("/a/b/*"), route("/x/{p}/y"), route("/x/z/{p}")
    assert winner([short, long], "h", "/a/b/c") is long
    assert winner([first, second], "h", "/x/z/y") is second


def test_named_methods_before_none_and_the_older_route_wins_a_tie() -> None:
    every, post = route("/a", created=1.0), route("/a", "", "POST", created=2.0)
    assert winner([every, post], "h", "/a", "POST") is post
    assert winner([every, post], "h", "/a", "GET") is every
    old, young = route("/a", created=1.0), route("/a", created=2.0)
    assert winner([young, old], "h", "/a") is old


def test_prefix_matches_its_own_root_but_not_a_longer_word() -> None:
    there = [route("/a/*")]
    assert winner(there, "h", "/a") is not None
    assert winner(there, "h", "/a/") is not None
    assert winner(there, "h", "/ab") is None


def test_parameters_are_decoded_after_splitting_and_never_empty() -> None:
    table = routes.table([route("/u/{user}/f/{file}")])
    found = routes.find(table, "h", "/u/j%20d/f/a%2Fb", "GET")
    assert isinstance(found, routes.Match)
    assert found.parameters == {"user": "j d", "file": "a/b"}
    assert isinstance(routes.find(table, "h", "/u//f/x", "GET"), routes.Miss)


def test_rest_of_a_prefix_stays_raw() -> None:
    found = routes.find(routes.table([route("/a/{b}/*")]), "h", "/a/x/c%2Fd/", "GET")
    assert isinstance(found, routes.Match)
    assert found.rest == "/c%2Fd/"
    found = routes.find(routes.table([route("/a/*")]), "h", "/a", "GET")
    assert isinstance(found, routes.Match) and found.rest == "/"


def test_miss_tells_a_wrong_method_from_an_unknown_path() -> None:
    table = routes.table([route("/a", "", "post", "PUT"), route("/b")])
    assert routes.find(table, "h", "/a", "GET") == routes.Miss(("POST", "PUT"))
    assert routes.find(table, "h", "/c", "GET") == routes.Miss(())


def test_host_of_version_six_addresses() -> None:
    v6 = route(host="[::1]")
    assert winner([v6], "[::1]:8080", "/") is v6


@pytest.mark.parametrize("path", ["a", "", "/a/{b", "/a/*/b", "/a/{1}", "/{a}/{a}", "/x{y}", "/*x"])
def test_bad_patterns_are_refused(path: str) -> None:
    with pytest.raises(InvalidInput):
        routes.parse_path(path)


segment = st.sampled_from(["a", "b", "{p}"])
paths = st.lists(segment, min_size=1, max_size=3, unique=True).flatmap(
    lambda parts: st.sampled_from(["/" + "/".join(parts), "/" + "/".join(parts) + "/*", "/*"])
)


@given(
    st.lists(
        st.tuples(paths, st.sampled_from(["", "h.x", "*.x"]), st.sampled_from([(), ("GET",), ("POST",)])), max_size=6
    ),
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4),
)
def test_order_of_the_routes_does_not_matter(specs: list[tuple[str, str, tuple[str, ...]]], parts: list[str]) -> None:
    there = [route(p, h, *m, created=float(n), name=f"r{n}") for n, (p, h, m) in enumerate(specs)]
    path = "/" + "/".join(parts)
    one = routes.find(routes.table(there), "h.x", path, "GET")
    other = routes.find(routes.table(list(reversed(there))), "h.x", path, "GET")
    assert one == other
    if isinstance(one, routes.Match):
        literal = [r for r in there if r.spec.match.path == path and r.spec.match.host == one.route.spec.match.host]
        if any(not r.spec.match.methods or "GET" in r.spec.match.methods for r in literal):
            assert one.route.spec.match.path == path
