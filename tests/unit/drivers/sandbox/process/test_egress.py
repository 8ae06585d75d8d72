"""Egress in a little internet of its own (egress_world.py): what is reachable, and what is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from septet.drivers.sandbox.process import egress_tools
from septet.drivers.sandbox.process.egress import Egress
from septet.model.errors import InvalidInput

WORLD = Path(__file__).with_name("egress_world.py")
ROOT = Path(__file__).resolve().parents[5]
APART = ("unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")
NOTHING: dict[str, object] = {"tables": [], "interfaces": [], "forwarding": False}
DNS = {"10.1.2.3:53", "10.1.2.3:u53"}
SEEN = {
    "everything": {
        "198.51.100.7:80",
        "198.51.100.8:80",
        "203.0.113.2:80",
        "198.51.100.7:443",
        "198.51.100.7:u53",
        *DNS,
    },
    "network": {"198.51.100.7:80", "198.51.100.7:443", "198.51.100.7:u53"},
    "port": {"198.51.100.7:443"},
    "name": {"198.51.100.7:80", *DNS},
    "moved": {"198.51.100.8:80"},
    "rebound": DNS,
    "overlap": {"198.51.100.7:80", "198.51.100.8:80", "198.51.100.7:443", "198.51.100.7:u53"},
    "unattached": set(),
}


def world(part: str) -> dict[str, Any]:
    done = subprocess.run(
        [*APART, sys.executable, str(WORLD), part],
        capture_output=True,
        timeout=120,
        env={"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path]), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def reached(answers: dict[str, str]) -> set[str]:
    return {target for target, answer in answers.items() if answer == "open"}


@pytest.fixture(scope="module")
def as_root() -> dict[str, Any]:
    return world("root")


@pytest.fixture(scope="module")
def as_user() -> dict[str, Any]:
    if not egress_tools.tunnel():
        pytest.skip(f"this user cannot open {egress_tools.TUNNEL}, so pasta cannot work")
    return world("world")


@pytest.mark.parametrize("case", SEEN)
@pytest.mark.parametrize("way", ["as_root", "as_user"])
def test_an_instance_reaches_what_its_list_names(case: str, way: str, request: pytest.FixtureRequest) -> None:
    assert reached(request.getfixturevalue(way)[case]) == SEEN[case]


def test_the_host_itself_reaches_every_stand_in(as_root: dict[str, Any]) -> None:
    """The control: each address that instances cannot reach has a server that answers."""
    assert set(as_root["host"].values()) == {"open"}


def test_instances_do_not_reach_each_other_and_nobody_reaches_them(as_root: dict[str, Any]) -> None:
    assert reached(as_root["neighbour"]) == {"198.51.100.7:80"}
    assert as_root["neighbour listens"] == {"198.18.0.6:80": "open"}
    assert reached(as_root["inbound"]) == set()


def test_the_operator_can_open_a_part_of_the_private_ranges(as_root: dict[str, Any]) -> None:
    assert reached(as_root["opened"]) == SEEN["everything"] | {"192.168.7.7:80"}


def test_nothing_is_left_behind(as_root: dict[str, Any]) -> None:
    assert as_root["forwarding before"] is False
    assert as_root["untouched by the probe"] == NOTHING
    assert as_root["running"]["tables"] == ["table inet septet_abc"]
    assert len(as_root["running"]["interfaces"]) == 2
    assert as_root["cleaned"] == as_root["closed"] == NOTHING
    assert all(not reached(as_root[case]) for case in as_root if case.endswith(" detached"))
    assert as_root["dead process"] and as_root["own namespace"] and as_root["twice"]


def test_two_platforms_share_a_host(as_root: dict[str, Any]) -> None:
    seen = as_root["crowded"]
    assert seen["both have addresses"] and seen["forwarding"]
    for case in ("first", "second", "second alone"):
        assert seen[case] == {"198.51.100.7:80": "open"}
    assert seen["after"] == NOTHING


def test_pasta_ends_with_its_instance(as_user: dict[str, Any]) -> None:
    assert as_user["uid"] == 1000
    assert as_user["pasta ends on detach"] == [1, True]
    assert as_user["another's pasta stays"] == 1
    assert as_user["pasta ends on cleanup"] is True


def test_pasta_dies_with_a_killed_platform(as_user: dict[str, Any]) -> None:
    assert as_user["pasta after kill -9, untied=False"] == [1, True]
    assert as_user["pasta after kill -9, untied=True"] == [1, False], "the control: nothing else would end it"


def test_pasta_without_its_flags_opens_the_loopback(as_user: dict[str, Any]) -> None:
    """The control for the flags and for the rules inside: without them both doors are open."""
    assert as_user["control"] == {"203.0.113.2:80": "open", "169.254.169.254:80": "open"}


@pytest.mark.parametrize("way", ["as_root", "as_user"])
def test_the_probe_says_that_it_works(way: str, request: pytest.FixtureRequest) -> None:
    assert set(request.getfixturevalue(way)["checks"].values()) == {"ok"}


async def test_a_closed_tunnel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress_tools, "tunnel", lambda: False)
    with pytest.raises(InvalidInput, match="/dev/net/tun"):
        Egress().check((), True)
    Egress().check((), False)


async def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    find = egress_tools.find
    monkeypatch.setattr(egress_tools, "tunnel", lambda: True)
    monkeypatch.setattr(egress_tools, "find", lambda name: None if name == "pasta" else find(name))
    with pytest.raises(InvalidInput, match="apt install passt"):
        await Egress().attach("a", 1, (), True)
    monkeypatch.setattr(egress_tools, "find", lambda name: None if name == "nft" else find(name))
    with pytest.raises(InvalidInput, match="apt install nftables"):
        Egress().check((), False)
    missing = [check for check in await Egress().probe() if check.state == "missing"]
    assert [check.fix for check in missing] == ["apt install nftables"]
