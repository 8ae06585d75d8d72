"""Which APIs a listener speaks, and who may call on it without a token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from septet.dataplane.dispatch import ASGIApp
from septet.model.instance import InstanceInfo
from septet.wire.callroute import CallRoute


class Surface(NamedTuple):
    """One API as the front sees it: its calls as data, the paths of its control requests, and who answers those."""

    name: str
    call_routes: tuple[CallRoute, ...]
    prefixes: tuple[bytes, ...]
    app: ASGIApp


class Surfaces:
    """The context of a listener: its APIs in order. A path that two of them claim goes to the first named.

    `anonymous` are namespaces whose functions may be called here without a token. `instance` is set behind an
    inner gateway: who is on the other side.
    """

    __slots__ = ("_controls", "_routes", "anonymous", "first", "instance")

    def __init__(
        self,
        surfaces: Sequence[Surface],
        anonymous: frozenset[str] = frozenset(),
        instance: InstanceInfo | None = None,
    ) -> None:
        self.first = surfaces[0]
        self.anonymous = anonymous
        self.instance = instance
        routes = [route for surface in surfaces for route in surface.call_routes]
        # Sorting is stable: among equal prefixes the first named stays first.
        self._routes = sorted(routes, key=lambda route: -len(route.prefix))
        controls = [(prefix, surface.app) for surface in surfaces for prefix in surface.prefixes]
        self._controls = sorted(controls, key=lambda control: -len(control[0]))

    def behind(self, instance: InstanceInfo) -> Surfaces:
        """The same APIs for an instance at its inner gateway."""
        inner = Surfaces.__new__(Surfaces)
        inner.first, inner._routes, inner._controls = self.first, self._routes, self._controls
        inner.anonymous, inner.instance = frozenset(), instance
        return inner

    def call_route(self, path: bytes) -> CallRoute | None:
        """The call route that a path is under."""
        for route in self._routes:
            if path.startswith(route.prefix):
                return route
        return None

    def control(self, path: bytes) -> ASGIApp | None:
        """The application whose path this is; None for a path that no API claims."""
        for prefix, app in self._controls:
            if path.startswith(prefix):
                return app
        return None


def shared_claims(surfaces: Sequence[Surface]) -> list[str]:
    """A sentence for each path that two APIs of one listener claim: what start says."""
    owners: dict[bytes, str] = {}
    told: list[str] = []
    for surface in surfaces:
        for prefix in dict.fromkeys([route.prefix for route in surface.call_routes] + list(surface.prefixes)):
            owner = owners.setdefault(prefix, surface.name)
            if owner != surface.name:
                told.append(f"{prefix.decode()} is claimed by {owner} and {surface.name}: it goes to {owner}")
    return told
