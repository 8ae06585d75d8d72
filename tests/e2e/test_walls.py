"""Without the walls there is no platform, unless the operator says so in words."""

from __future__ import annotations

from pathlib import Path

import pytest
from septet_platform import Platform

ECHO = {"main.py": "def handle(request, context):\n    return request.body\n"}
# A user namespace of its own in which no further one may be made: a host that forbids them, in small.
NO_USER_NAMESPACES = (
    "unshare",
    "--user",
    "--map-root-user",
    "sh",
    "-c",
    'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"',
    "sh",
)


def test_a_host_without_user_namespaces_is_refused(tmp_path: Path) -> None:
    platform = Platform(tmp_path / "data", prefix=NO_USER_NAMESPACES)
    with pytest.raises(AssertionError) as caught:
        platform.start()
    assert "cannot isolate functions" in str(caught.value)
    assert "user namespace" in str(caught.value)
    assert "--sandbox none" in str(caught.value)


def test_without_isolation_only_by_the_operators_word(tmp_path: Path) -> None:
    with Platform(tmp_path / "data", "--sandbox", "none") as platform:
        platform.deploy("bare", ECHO)
        assert platform.call("bare", body=b"x").body == b"x"
        assert "WITHOUT ISOLATION" in platform.log.read_text()
