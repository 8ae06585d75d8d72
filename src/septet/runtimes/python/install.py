"""Installs dependencies with pip: the interpreter's own, or the one that Python ships for making environments."""

import glob
import os
import runpy
import sys

arguments = ["install", "--disable-pip-version-check", "--no-input", "--no-cache-dir", "--no-warn-script-location"]
arguments += ["--root-user-action=ignore", *sys.argv[1:]]
try:
    import pip  # noqa: F401
except ImportError:
    places = [*sys.path, "/usr/share/python-wheels"]
    import ensurepip

    places.append(os.path.join(os.path.dirname(ensurepip.__file__), "_bundled"))
    wheels = [wheel for place in places for wheel in glob.glob(os.path.join(place, "pip-*.whl"))]
    if not wheels:
        sys.exit("this host has no pip: apt install python3-pip")
    sys.path.insert(0, sorted(wheels)[-1])
sys.argv = ["pip", *arguments]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
