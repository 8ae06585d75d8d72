"""Starts a Python function: loads the handler, says so on the link, and serves calls until the link ends."""

import sys

sys.path.insert(0, __file__.rpartition("/")[0])

from septet_runtime.main import main

main()
