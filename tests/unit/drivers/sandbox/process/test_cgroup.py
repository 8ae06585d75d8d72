"""Control groups of every layout, on folders that stand in for the kernel's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from septet.drivers.sandbox.process import delegation, moves
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


def opened(folder: Path, look: bool = False) -> Cgroups:
    found = detect(mount(30, folder, "cgroup2", ""), "0::/system.slice/septet.service\n")
    cgroups = Cgroups(found, "k")
    if look:
        cgroups.try_out()
    else:
        cgroups.open()
    return cgroups


def state(own: Path) -> dict[str, str]:
    return {str(path): path.read_text() if path.is_file() else "" for path in own.rglob("*")}


@pytest.mark.parametrize("look", [False, True])
def test_a_group_with_others_in_it_is_left_alone(tmp_path: Path, look: bool) -> None:
    own = version_2(tmp_path, "cpu memory pids")
    (own / "cgroup.procs").write_text(f"{os.getppid()}\n{os.getpid()}\n")
    before = state(own)
    cgroups = opened(tmp_path, look)
    assert not cgroups.hard
    assert not cgroups.held
    assert cgroups.why == f"other processes are in the group and it was not delegated: {own}"
    assert "Delegate=yes" in cgroups.fix
    assert state(own) == before


def test_a_look_moves_nobody_out_of_a_group_of_ours(tmp_path: Path) -> None:
    own = version_2(tmp_path, "cpu memory pids")
    (own / "cgroup.procs").write_text(f"{os.getpid()}\n")
    before = state(own)
    assert opened(tmp_path, look=True).hard
    assert state(own) == before


def test_a_delegated_group_is_ours_whoever_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = version_2(tmp_path, "cpu memory pids")
    (own / "cgroup.procs").write_text(f"{os.getppid()}\n")
    monkeypatch.setattr(os, "getxattr", lambda path, name: {"user.delegate": b"1"}[name])
    cgroups = opened(tmp_path)
    assert cgroups.hard
    assert (own / "septet-platform" / "cgroup.procs").read_text() == str(os.getppid())


def test_a_failure_after_the_move_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = version_2(tmp_path, "cpu memory pids")
    (own / "cgroup.procs").write_text(f"{os.getpid()}\n")
    writes: list[tuple[str, str]] = []

    def write(path: Path, text: str, *_: object) -> int:
        writes.append((str(path.relative_to(own)), text))
        if path.name == "cgroup.subtree_control":
            raise OSError(16, "Device or resource busy", str(path))
        with path.open("w") as file:
            return file.write(text)

    monkeypatch.setattr(Path, "write_text", write)
    monkeypatch.setattr(Path, "rmdir", lambda path: writes.append((path.name, "removed")))
    cgroups = opened(tmp_path)
    assert not cgroups.held
    assert cgroups.why == f"Device or resource busy: {own}/cgroup.subtree_control"
    me = str(os.getpid())
    moves = [item for item in writes if item[0] != "cgroup.subtree_control"]
    assert moves == [("septet-platform/cgroup.procs", me), ("cgroup.procs", me), ("septet-platform", "removed")]


def test_closing_gives_the_group_back(tmp_path: Path) -> None:
    own = version_2(tmp_path, "cpu memory pids")
    (own / "cgroup.procs").write_text(f"{os.getpid()}\n")
    handed = delegation.Delegation(own, frozenset({"memory", "pids"}))
    assert handed.take() == {"memory", "pids"}
    (own / "cgroup.procs").write_text("")
    handed.give_back()
    assert (own / "cgroup.subtree_control").read_text() == "-memory -pids"
    assert (own / "cgroup.procs").read_text() == str(os.getpid())


def test_what_is_handed_on_already_needs_no_move(tmp_path: Path) -> None:
    own = version_2(tmp_path, "cpu memory pids")
    (own / "cgroup.procs").write_text(f"{os.getppid()}\n")
    (own / "cgroup.subtree_control").write_text("cpu memory pids")
    assert opened(tmp_path).hard
    assert not (own / "septet-platform").exists()


def test_a_controller_that_the_group_above_keeps_is_named(tmp_path: Path) -> None:
    own = version_2(tmp_path, "memory pids")
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids")
    (own.parent / "cgroup.controllers").write_text("memory pids")
    cgroups = opened(tmp_path)
    assert sorted(cgroups.held) == ["memory", "pids"]
    assert not cgroups.hard
    assert cgroups.why == "no control group controller for cpu"
    assert "Delegate=" in cgroups.fix
    assert "'+cpu'" in cgroups.fix
    assert cgroups.create("one", LIMITS).files == [str(own / "septet-k/one/cgroup.procs")]


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
    assert cgroups.held == {"cpu"}, "what there is, is held"
    assert cgroups.why == "no control group controller for memory, pids"
    assert "cgroup_enable=memory" in cgroups.fix


def test_counters_of_both_versions(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text("low 0\noom 2\noom_kill 1\n")
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    (tmp_path / "pids.events").write_text("max 4\n")
    folders = {"memory": tmp_path, "pids": tmp_path}
    assert Group(folders, {"memory": 2, "pids": 2}).oom_kills() == 1
    assert Group(folders, {"memory": 1, "pids": 1}).oom_kills() == 3
    assert Group(folders, {"memory": 1, "pids": 1}).refused_forks() == 4
    assert Group({}, {}).oom_kills() == 0


@pytest.mark.root
def test_moves_are_quick_while_a_hierarchy_is_held() -> None:
    held = moves.hold()
    if held < 0:
        pytest.skip("this kernel has no favordynmods (Linux 6.0)")
    try:
        assert "name=septet:" in Path("/proc/self/cgroup").read_text()
        assert "name=septet" not in Path("/proc/self/mountinfo").read_text()
    finally:
        moves.release(held)
