"""Published holes of container runtimes and of their neighbours, each with a control that shows that the test sees."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from septet_platform import Platform

from septet.dataplane.ids import IdSource

LOOKS = """
import os, stat

def status():
    with open("/proc/self/status") as file:
        return dict(line.split(":\\t", 1) for line in file.read().splitlines() if ":\\t" in line)

FIRST = status()

def kind(path):
    try:
        facts = os.stat(path)
    except OSError as error:
        return error.strerror
    if stat.S_ISCHR(facts.st_mode):
        return f"{os.major(facts.st_rdev)}:{os.minor(facts.st_rdev)}"
    if stat.S_ISDIR(facts.st_mode):
        return f"folder of {len(os.listdir(path))}"
    try:
        open(path, "rb").close()
    except OSError:
        return "shut"
    return "file"

def handle(request, context):
    names = ("kcore", "keys", "timer_list", "sysrq-trigger", "latency_stats", "kallsyms", "acpi", "scsi")
    with open("/proc/self/mountinfo") as file:
        kinds = {line.split()[4]: line.split(" - ")[1].split()[0] for line in file}
    return {
        "first": FIRST,
        "null": kind("/dev/null"),
        "own": kind("dev/null"),
        "masks": {name: kind(f"/proc/{name}") for name in names},
        "console": kind("/dev/console"),
        "terminals": [number for number in range(4) if os.isatty(number)],
        "proc": kinds.get("/proc"),
        "code": kinds.get("/function"),
    }
"""


@pytest.fixture(scope="module")
def seen(platform: Platform) -> Iterator[dict[str, object]]:
    """What a function sees whose source brings a /dev/null and a /proc of its own."""
    files = {"main.py": LOOKS, "dev/null": "not the device", "dev/console": "", "proc/self/status": "Uid:\t0\n"}
    platform.deploy("looks", files)
    yield platform.call("looks").json


def test_adv_cve_2025_31133(seen: dict[str, object]) -> None:
    """What masks a path was not looked at: anything that was called /dev/null did."""
    assert seen["null"] == "1:3"
    assert seen["own"] == "file", "the control: a false one is told from the device"
    masks = seen["masks"]
    assert isinstance(masks, dict)
    assert set(masks.values()) <= {"1:3", "shut", "folder of 0", "No such file or directory"}, masks
    assert "1:3" in masks.values()


def test_adv_cve_2025_52565(seen: dict[str, object]) -> None:
    """A terminal was mounted onto a /dev/console that the image had chosen."""
    assert seen["own"] == "file", "the control: a device node or a file would be seen"
    assert seen["console"] == "No such file or directory"
    assert seen["terminals"] == []


def test_adv_cve_2025_52881(seen: dict[str, object]) -> None:
    """What was meant for /proc went into a file system of the image's."""
    assert seen["code"] is not None and seen["code"] != "proc", "the control: kinds of mounts are told apart"
    assert seen["proc"] == "proc"


def test_adv_cve_2025_2713(seen: dict[str, object]) -> None:
    """Privileges were given up only after the first instructions of what was run."""
    own = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    assert int(own["CapBnd"], 16) != 0, "the control: this process has capabilities in its bounds"
    first = seen["first"]
    assert isinstance(first, dict)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(first[name], 16) == 0, first
    assert set(first["Uid"].split()) != {"0"}
    assert (first["NoNewPrivs"], first["Seccomp"]) == ("1", "2")


def reachable(root: Path) -> list[str]:
    """What others than its owner may enter, read or write below a folder, by the modes alone."""
    found = []
    pending = [root]
    while pending:
        path = pending.pop()
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            found += [str(path)] if mode & 0o007 else []
            pending += path.iterdir() if mode & 0o001 else []
        elif not stat.S_ISLNK(mode) and mode & 0o006:
            found.append(str(path))
    return found


def test_adv_cve_2021_41103(platform: Platform, tmp_path: Path) -> None:
    """Folders of the state stood open to every user of the host."""
    open_one = tmp_path / "open"
    open_one.mkdir()
    open_one.chmod(0o755)
    (open_one / "file").touch(0o644)
    assert reachable(open_one) == [str(open_one), str(open_one / "file")], "the control: open ones are found"
    assert reachable(platform.data) == []


def repeated(ids: list[str]) -> bool:
    """Whether any is there twice, or any hex digit stands at a place of them far more often than by chance."""
    if len(set(ids)) < len(ids):
        return True
    expected = len(ids) / 16
    for place in zip(*(one[-16:] for one in ids), strict=True):
        if any(abs(place.count(digit) - expected) > 0.2 * expected for digit in "0123456789abcdef"):
            return True
    return False


def test_adv_cve_2024_10026() -> None:
    """Numbers that had to be secret came from a hash that could be turned back."""
    assert repeated([f"{number:032x}" for number in range(20_000)]), "the control: counted ones are seen"
    make = IdSource().invocation
    assert not repeated([make() for _ in range(20_000)])


def test_adv_cve_2021_43784(platform: Platform) -> None:
    """A length of 16 bits ran over, so that a long text became settings of the start."""
    long = "x" * 70_000 + "\nuid=0"
    source = {"main.py": "import os\ndef handle(request, context):\n    return [os.environ['LONG'], os.getuid()]\n"}
    platform.deploy("long", source, env={"LONG": long})
    platform.deploy("short", source, env={"LONG": "short"})
    short, uid = platform.call("short").json
    assert short == "short", "the control: the variable is what the function sees"
    assert platform.call("long").json[0] == long
    assert uid != 0 and platform.call("long").json[1] != 0
