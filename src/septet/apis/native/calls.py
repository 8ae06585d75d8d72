"""The native API's calls, as data for the front: /fn/<namespace>/<function>/<path>."""

from __future__ import annotations

from septet.wire.callroute import CallRoute
from septet.wire.problem import render_problem

CALL_ROUTES = (CallRoute(api="native", prefix=b"/fn/", render_error=render_problem),)
OWN_PREFIXES = (b"/fn/", b"/septet/", b"/healthz", b"/readyz", b"/livez", b"/metrics")
"""Paths that no route object of a tenant can take."""
