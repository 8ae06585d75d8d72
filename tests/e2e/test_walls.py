"""Without the walls there is no platform, unless the operator says so in words."""

from __future__ import annotations

import os
import time
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


PLACE = {
    "main.py": "def handle(request, context):\n"
    "    fields = open('/proc/self/stat').read().rpartition(')')[2].split()\n"
    "    return {'nice': int(fields[16]), 'policy': int(fields[38])}  # proc_pid_stat(5)\n"
}


def test_a_function_never_pushes_the_platform_off_a_core(platform: Platform) -> None:
    platform.deploy("place", PLACE)
    given = os.getpriority(os.PRIO_PROCESS, 0)
    assert platform.call("place").json == {"nice": max(given, 0), "policy": os.SCHED_BATCH}
    assert os.getpriority(os.PRIO_PROCESS, platform.pid) == (-10 if given == 0 and os.geteuid() == 0 else given)


GLUTTONS = {
    "python": {"main.py": "def handle(request, context):\n    return len(bytearray(600 * 1024 * 1024))\n"},
    "node": {"main.js": "module.exports = () => String(Buffer.alloc(600 * 1024 * 1024, 1).length)\n"},
    "ruby": {"main.rb": "def handle(request, context)\n  ('x' * (600 * 1024 * 1024)).size.to_s\nend\n"},
}


@pytest.mark.root
@pytest.mark.parametrize("runtime", GLUTTONS)
def test_an_instance_that_waited_has_its_function_s_limits(platform: Platform, runtime: str) -> None:
    name = f"glutton-{runtime}"
    platform.deploy(f"first-{runtime}", GLUTTONS[runtime], runtime=runtime)
    deadline = time.monotonic() + 20
    while b"septet_warm_pool 0" in platform.request("GET", "/metrics").body and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    platform.deploy(name, GLUTTONS[runtime], runtime=runtime, limits={"memory": 96})
    assert [instance["tier"] for instance in platform.instances(name)] == ["pool"]
    got = platform.call(name)
    assert (got.status, got.json["type"]) == (502, "urn:septet:error:function-out-of-memory"), got.text
    assert "memory 96 MiB" in got.json["limit"]
