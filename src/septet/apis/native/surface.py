"""The native API as a listener takes it: its calls as data, its control paths, its application."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from septet.apis.native.app import NativeApi, NativeSettings
from septet.service.service import Service
from septet.wire.callroute import CallRoute
from septet.wire.problem import render_problem

PREFIXES = (b"/septet/", b"/healthz", b"/readyz", b"/livez", b"/metrics")
"""Paths that no route object of a tenant can take."""


class Face(NamedTuple):
    """What an API gives to a listener."""

    call_routes: tuple[CallRoute, ...]
    prefixes: tuple[bytes, ...]
    app: NativeApi


MakeSurface = Callable[[Service, NativeSettings, str], Face]


def surface(service: Service, settings: NativeSettings, namespace: str) -> Face:
    """Calls are /fn/<namespace>/<function>/<path>, so the listener's own namespace plays no part."""
    route = CallRoute(api="native", prefix=b"/fn/", render_error=render_problem, namespace=namespace)
    return Face((route,), PREFIXES, NativeApi(service, settings))
