"""The platform itself: audit log, doctor, node, metrics."""

from __future__ import annotations

import msgspec

from septet.ports.fleetview import NodeFacts
from septet.ports.sandbox import Check
from septet.service import validation
from septet.service.commands import Doctor, NodeStatus, ReadAudit, ReadMetrics
from septet.service.context import Context
from septet.service.results import AuditEntry, AuditLog


async def read_audit(context: Context, command: ReadAudit) -> AuditLog:
    validation.number("limit", command.limit, 1, 1000)
    validation.number("before", command.before, 0, 2**63 - 1)
    entries = await context.ports.store.read_audit(command.limit, command.before)
    return AuditLog(items=tuple(msgspec.convert(entry, AuditEntry) for entry in entries))


async def doctor(context: Context, _command: Doctor) -> list[Check]:
    return await context.ports.fleet.checks()


async def node_status(context: Context, _command: NodeStatus) -> NodeFacts:
    return context.ports.fleet.node()


async def read_metrics(context: Context, _command: ReadMetrics) -> bytes:
    return await context.ports.metrics()
