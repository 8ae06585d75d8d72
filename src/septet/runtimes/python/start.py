"""Starts a Python function: loads its handler and serves calls on the frame link (docs/frames.md)."""

import sys

_HERE = __file__.rpartition("/")[0] or "."
# The package is found through its own path alone, so that no module of a function can be mistaken for one of it.
sys.path.insert(0, _HERE)

from septet_runtime.start import start  # noqa: E402

sys.path.remove(_HERE)

if __name__ == "__main__":
    start()
