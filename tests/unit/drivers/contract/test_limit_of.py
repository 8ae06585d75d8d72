"""An exception that the kernel's refusal caused names the limit that was met."""

from __future__ import annotations

import pytest

from septet.drivers.contract.frame_stream import Raised, limit_of


@pytest.mark.parametrize(
    ("type_", "message", "limit"),
    [
        ("OSError", "[Errno 28] No space left on device: '/tmp/x'", "tmp"),
        ("Error", "ENOSPC: no space left on device, write", "tmp"),
        ("Errno::ENOSPC", "No space left on device @ io_write", "tmp"),
        ("BlockingIOError", "[Errno 11] Resource temporarily unavailable", "pids"),
        ("RuntimeError", "can't start new thread", "pids"),
        ("OSError", "[Errno 24] Too many open files", "open files"),
        ("MemoryError", "", "memory"),
        ("ValueError", "[Errno 2] is what I say", ""),
        ("KeyError", "'name'", ""),
    ],
)
def test_the_limit_is_named(type_: str, message: str, limit: str) -> None:
    assert limit_of(Raised(type_, message, "")) == limit
