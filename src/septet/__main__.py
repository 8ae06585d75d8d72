"""`python -m septet`."""

from septet.cli.main import run

run()
