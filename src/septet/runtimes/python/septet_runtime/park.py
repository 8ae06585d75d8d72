"""Waits, in an instance without a function yet, until it is told which one it has (docs/add-a-runtime.md)."""

import os


def told(descriptor):
    """The environment that the function is to have; its working directory is entered. Never returns if none comes."""
    with open(descriptor, "rb") as pipe:
        data = pipe.read()
    if not data:
        os._exit(0)
    folder, *variables = os.fsdecode(data)[:-1].split("\0")
    os.chdir(folder)
    return dict(variable.split("=", 1) for variable in variables)
