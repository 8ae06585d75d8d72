"""Control groups of every layout, on folders that stand in for the kernel's."""

from __future__ import annotations

from pathlib import Path

from septet.drivers.sandbox.process.cgroup import Cgroups, Group, detect
from septet.model.function import Limits

LIMITS = Limits(memory=64, cpu=0.5, pids=10)


def mount(number: int, point: Path, kind: str, options: str) -> str:
    return f"{number} 1 0:{number} / {point} rw - {kind} {kind} rw,{options}\n"


def version_2(folder: Path, controllers: str) -> Path:
    own = folder / "system.slice" / "septet.service"
    own.mkdir(parents=True)
    (own / "cgroup.controllers").write_text(controllers)
    (own / "cgroup.type").write_text("domain")
    (own / "cgroup.procs").write_text("")
    return own


def test_version_2(tmp_path: Path) -> None:
    own = version_2(tmp_path, "cpu io memory pids")
    (found,) = detect(mount(30, tmp_path, "cgroup2", "nsdelegate"), "0::/system.slice/septet.service\n")
    assert (found.version, found.own, set(found.controllers)) == (2, own, {"cpu", "memory", "pids"})
    cgroups = Cgroups([found], "k")
    cgroups.open()
    assert cgroups.hard
    assert (own / "septet-platform").is_dir(), "a group with processes cannot have groups with controllers"
    assert (own / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert cgroups.create("one", LIMITS).files == [str(own / "septet-k/one/cgroup.procs")]


def test_version_2_after_we_moved_ourselves(tmp_path: Path) -> None:
    own = version_2(tmp_path, "cpu memory pids")
    (own / "septet-platform").mkdir()
    (found,) = detect(mount(30, tmp_path, "cgroup2", ""), "0::/system.slice/septet.service/septet-platform\n")
    assert found.own == own


def test_hybrid(tmp_path: Path) -> None:
    unified = tmp_path / "unified"
    unified.mkdir()
    (unified / "cgroup.controllers").write_text("hugetlb pids")
    for name in ("memory", "cpu,cpuacct"):
        (tmp_path / name).mkdir()
    text = mount(30, unified, "cgroup2", "") + mount(31, tmp_path / "memory", "cgroup", "memory")
    text += mount(32, tmp_path / "cpu,cpuacct", "cgroup", "cpu,cpuacct")
    found = detect(text, "2:memory:/\n1:cpu,cpuacct:/\n0::/\n")
    assert {(item.version, name) for item in found for name in item.controllers} == {
        (2, "pids"),
        (1, "memory"),
        (1, "cpu"),
        (1, "cpuacct"),
    }


def test_limits_are_written(tmp_path: Path) -> None:
    own = version_2(tmp_path, "cpu memory pids")
    (found,) = detect(mount(30, tmp_path, "cgroup2", ""), "0::/system.slice/septet.service\n")
    cgroups = Cgroups([found], "k")
    cgroups.open()
    folder = own / "septet-k/one"
    names = ("memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "pids.max")
    # The kernel makes a group's files with it, a plain folder has none: so they are put there after the mkdir.
    made = Path.mkdir

    def with_files(path: Path, *arguments: object, **named: object) -> None:
        made(path, *arguments, **named)  # type: ignore[arg-type]
        if path == folder:
            for name in names:
                (path / name).write_text("max")

    Path.mkdir = with_files  # type: ignore[method-assign,assignment]
    try:
        cgroups.create("one", LIMITS)
    finally:
        Path.mkdir = made  # type: ignore[method-assign]
    values = [(folder / name).read_text() for name in names]
    assert values == [str(64 << 20), "0", "1", "50000 100000", "11"]


def test_missing_controllers_are_said(tmp_path: Path) -> None:
    version_2(tmp_path, "cpu")
    (found,) = detect(mount(30, tmp_path, "cgroup2", ""), "0::/system.slice/septet.service\n")
    cgroups = Cgroups([found], "k")
    cgroups.open()
    assert not cgroups.hard
    assert cgroups.why == "no control group controller for memory, pids"


def test_counters_of_both_versions(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text("low 0\noom 2\noom_kill 1\n")
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    (tmp_path / "pids.events").write_text("max 4\n")
    folders = {"memory": tmp_path, "pids": tmp_path}
    assert Group(folders, {"memory": 2, "pids": 2}).oom_kills() == 1
    assert Group(folders, {"memory": 1, "pids": 1}).oom_kills() == 3
    assert Group(folders, {"memory": 1, "pids": 1}).refused_forks() == 4
    assert Group({}, {}).oom_kills() == 0
