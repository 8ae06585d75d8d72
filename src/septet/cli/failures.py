"""What a command ends with when it does not succeed: one line for people, one number for scripts."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes; docs/cli.md lists them and scripts may rely on them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    DENIED = 4
    CONFLICT = 5
    TIMEOUT = 6
    FUNCTION = 7
    UNREACHABLE = 8
    INTERRUPTED = 130


EXIT_MEANINGS: dict[Exit, str] = {
    Exit.OK: "done",
    Exit.FAILED: "it was tried and failed; the message says why",
    Exit.USAGE: "the command line or septet.yaml is wrong; nothing was sent",
    Exit.NOT_FOUND: "no such function, revision, secret, namespace or token",
    Exit.DENIED: "no token, a wrong or expired one, or one that may not do this",
    Exit.CONFLICT: "it exists already, changed meanwhile, or is still in use",
    Exit.TIMEOUT: "it took longer than it may",
    Exit.FUNCTION: "the function was called and failed, or answered with a status of 400 or more",
    Exit.UNREACHABLE: "the platform does not answer at this address",
    Exit.INTERRUPTED: "ended by Ctrl-C",
}


class Failure(Exception):
    """Ends the command: `message` on standard error in one line, `code` as the exit code.

    `more` are further lines, shown below the message as they are (the end of a build's log, for example).
    """

    def __init__(self, message: str, *, hint: str = "", code: Exit = Exit.FAILED, more: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.more = more

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message


_STATUS_EXITS: dict[int, Exit] = {
    401: Exit.DENIED,
    403: Exit.DENIED,
    404: Exit.NOT_FOUND,
    408: Exit.TIMEOUT,
    409: Exit.CONFLICT,
    410: Exit.CONFLICT,
    412: Exit.CONFLICT,
    504: Exit.TIMEOUT,
}


def exit_for_status(status: int) -> Exit:
    """The exit code for an HTTP status of 400 or more that the platform answered."""
    return _STATUS_EXITS.get(status, Exit.FAILED)
