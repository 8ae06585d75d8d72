"""A small assembler for classic BPF, as seccomp(2) takes it. Standard library only."""

from __future__ import annotations

import struct
from typing import NamedTuple

LOAD_WORD = 0x20
AND = 0x54
JUMP = 0x05
JUMP_EQUAL = 0x15
JUMP_AT_LEAST = 0x35
RETURN = 0x06


class Instruction(NamedTuple):
    """One struct sock_filter; `yes` and `no` are how many instructions to pass over."""

    code: int
    yes: int
    no: int
    value: int


Code = list[Instruction]


def load(offset: int) -> Code:
    """The 32-bit word at `offset` of struct seccomp_data, into the accumulator."""
    return [Instruction(LOAD_WORD, 0, 0, offset)]


def mask(value: int) -> Code:
    return [Instruction(AND, 0, 0, value)]


def give(value: int) -> Code:
    return [Instruction(RETURN, 0, 0, value)]


def branch(code: int, value: int, otherwise: Code, then: Code) -> Code:
    """Runs `then` when the comparison holds, else `otherwise`. Both must end by returning."""
    if len(otherwise) <= 255:
        return [Instruction(code, len(otherwise), 0, value), *otherwise, *then]
    return [Instruction(code, 0, 1, value), Instruction(JUMP, 0, 0, len(otherwise)), *otherwise, *then]


def assemble(code: Code) -> bytes:
    """The array of struct sock_filter; ValueError past the kernel's 4096 instructions."""
    if len(code) > 4096:
        raise ValueError(f"the filter has {len(code)} instructions, the kernel takes 4096")
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
