"""Installs what a Python source needs, with pip: the interpreter's own, or the one that Python ships for making
environments.   install.py DEPS requirements.txt|pyproject.toml   (in the source's folder)"""

import glob
import os
import runpy
import shutil
import sys

SOURCE = "/tmp/source"
WHEELS = "/usr/share/python-wheels"
OPTIONS = [
    "--disable-pip-version-check",
    "--no-input",
    "--no-cache-dir",
    "--no-compile",
    "--no-warn-script-location",
    "--progress-bar=off",
    "--root-user-action=ignore",
]


def find_pip(folders):
    """Makes pip importable, or ends with the package that has it."""
    try:
        import pip  # noqa: F401
    except ImportError:
        wheels = [wheel for folder in folders for wheel in glob.glob(os.path.join(folder, "pip-*.whl"))]
        if not wheels:
            sys.exit("this host's Python has no pip: apt install python3-pip")
        sys.path.insert(0, sorted(wheels)[-1])


def wheel_folders():
    """Where Debian, and where Python itself, keeps pip's wheel."""
    try:
        import ensurepip
    except ImportError:
        return [WHEELS]
    return [WHEELS, os.path.join(os.path.dirname(ensurepip.__file__), "_bundled")]


def project(tables):
    """What to install for a pyproject.toml: its dependencies; or None, the project itself, when it says how it is
    built or that its dependencies are known only then."""
    described = tables.get("project", {})
    if "build-system" in tables or "dependencies" in described.get("dynamic", ()):
        return None
    return described.get("dependencies", [])


def read_toml(path):
    try:
        import tomllib
    except ImportError:  # Python 3.10
        from pip._vendor import tomli as tomllib
    with open(path, "rb") as file:
        return tomllib.load(file)


def wanted(name):
    """pip's words for what the file asks for; none when there is nothing to install."""
    if name != "pyproject.toml":
        return ["--requirement", name]
    found = project(read_toml(name))
    if found is None:
        # A build writes beside the source, and the source is kept as it was sent.
        shutil.copytree(".", SOURCE)
        return [SOURCE]
    return found


def main():
    target, name = sys.argv[1:]
    find_pip(wheel_folders())
    words = wanted(name)
    if not words:
        print(name, "names no dependencies")
        return
    sys.argv = ["pip", "install", *OPTIONS, "--target", target, *words]
    runpy.run_module("pip", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
