"""install.py and compile.py of the Python runtime, run as a build runs them."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[3] / "src" / "septet" / "runtimes" / "python"


@pytest.fixture
def install() -> dict[str, Any]:
    return runpy.run_path(str(FOLDER / "install.py"), run_name="install")


def test_requirements_go_to_pip_as_they_are(install: dict[str, Any]) -> None:
    assert install["wanted"]("requirements.txt") == ["--requirement", "requirements.txt"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("[tool.ruff]\nline-length = 100\n", []),
        ('[project]\nname = "x"\ndependencies = ["six", "idna>=3"]\n', ["six", "idna>=3"]),
        ('[project]\nname = "x"\ndynamic = ["dependencies"]\n', None),
        ('[build-system]\nrequires = []\n[project]\ndependencies = ["six"]\n', None),
    ],
)
def test_a_project_is_built_only_when_it_says_how(
    install: dict[str, Any], tmp_path: Path, text: str, words: list[str] | None
) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    assert install["project"](install["read_toml"](tmp_path / "pyproject.toml")) == words


def test_a_host_without_pip_is_told_the_package(install: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pip", None)
    with pytest.raises(SystemExit, match="apt install python3-pip"):
        install["find_pip"]([])


def test_the_newest_wheel_of_pip_is_used(
    install: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pip-23.0-py3-none-any.whl", "setuptools-66-py3-none-any.whl"):
        (tmp_path / name).touch()
    monkeypatch.setitem(sys.modules, "pip", None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    install["find_pip"]([str(tmp_path)])
    assert sys.path[0] == str(tmp_path / "pip-23.0-py3-none-any.whl")


def compiled(folder: Path) -> bytes:
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "good.py").write_text("X = 1\n")
    (folder / "code" / "bad.py").write_text("def:\n")
    command = [sys.executable, "-I", "-S", str(FOLDER / "compile.py"), "code", "deps"]
    subprocess.run(command, cwd=folder, check=True, timeout=30)
    (found,) = (folder / "code" / "__pycache__").iterdir()
    assert found.name.startswith("good.")
    return found.read_bytes()


def test_compiled_files_depend_on_nothing_but_their_source(tmp_path: Path) -> None:
    first, second = compiled(tmp_path / "one"), compiled(tmp_path / "two")
    assert first == second
    assert first[4] == 0b01, "its hash is not checked again"
