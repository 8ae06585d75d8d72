"""How much a plain install pulls, and that nothing in it is older than the fix of a published hole."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
MOST = 28

# The floor of each package that is installed here, for a run or for the tests: the first version without its
# published holes. Those that are not pulled stand here too, so that one that comes in later is held to it.
FLOORS = {
    "starlette": "1.0.1",
    "uvicorn": "0.11.7",
    "h11": "0.16.0",
    "httptools": "0.6.3",
    "h2": "4.3.0",
    "aiohttp": "3.13.4",
    "python-multipart": "0.0.27",
    "multipart": "1.3.1",
    "websockets": "9.1",
    "pyjwt": "2.4.0",
}


def plain_install() -> set[str]:
    """The names of all distributions that `pip install septet` pulls on this Python, septet itself included."""
    found: set[str] = set()
    wanted = ["septet"]
    while wanted:
        name = canonicalize_name(wanted.pop())
        if name in found:
            continue
        found.add(name)
        for line in importlib.metadata.requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(requirement.name)
    return found


def pins(name: str) -> dict[str, str]:
    """The pinned versions in requirements/<name>.txt."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return {str(canonicalize_name(n)): v for n, v in re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.M)}


def test_a_plain_install_pulls_few_distributions() -> None:
    found = plain_install()
    assert {"septet", "click", "starlette", "anyio"} <= found
    assert len(found) <= MOST, sorted(found)


def test_the_pins_are_what_a_plain_install_pulls() -> None:
    assert set(pins("run")) == plain_install() - {"septet"}


def test_no_version_is_below_its_floor() -> None:
    installed = {str(canonicalize_name(d.metadata["Name"])): d.version for d in importlib.metadata.distributions()}
    checked = 0
    for versions in (installed, pins("run"), pins("dev")):
        for name, floor in FLOORS.items():
            if name in versions:
                checked += 1
                assert Version(versions[name]) >= Version(floor), f"{name} {versions[name]} is older than {floor}"
    assert checked >= 3, "starlette alone is in all three"


def test_the_declared_floor_of_starlette_has_the_fix() -> None:
    declared = next(Requirement(r) for r in importlib.metadata.requires("septet") or () if r.startswith("starlette"))
    assert declared.specifier.contains("1.0.1") and not declared.specifier.contains("1.0.0")


def test_every_pin_has_hashes_and_no_index_is_named() -> None:
    for name in ("run", "dev"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text()
        blocks = re.split(r"\n(?=[A-Za-z0-9])", text)
        assert all("--hash=sha256:" in block for block in blocks if "==" in block)
        assert "http" not in text.replace("httpx", "") or "://" not in text
        assert not re.search(r"^--(index|extra-index|find-links|trusted)", text, re.M)


def test_every_dependency_says_why() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    block = text.partition("\ndependencies = [")[2].partition("]")[0]
    lines = [line for line in block.splitlines() if '"' in line]
    assert len(lines) >= 8 and all("#" in line for line in lines)
