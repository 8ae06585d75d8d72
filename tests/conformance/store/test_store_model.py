"""Random writes, lists and watches against a model that keeps every state there ever was."""

from __future__ import annotations

import asyncio
import copy
import tempfile
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from store_beds import SqliteBed, function, take, watching

from septet.model.errors import Conflict, Expired, NotFound
from septet.model.objects import AnyObject
from septet.ports.store import Change

KEEP = 20
NAMES = st.sampled_from(["a", "b", "c", "d", "e"])
NAMESPACES = st.sampled_from(["n1", "n2"])
State = dict[tuple[str, str], AnyObject]


class StoreMachine(RuleBasedStateMachine):
    """The model: the state after each version, and the changes in order."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.bed = SqliteBed(Path(self.folder.name))
        self.runner.run(self.bed.open(KEEP))
        self.states: list[State] = [{}]
        self.changes: list[Change] = []
        self.list: tuple[str | None, int, str, list[AnyObject]] | None = None

    def teardown(self) -> None:
        self.runner.run(self.bed.close())
        self.runner.close()
        self.folder.cleanup()

    def note(self, type_: str, obj: AnyObject) -> None:
        state = copy.copy(self.states[-1])
        key = (obj.meta.namespace, obj.meta.name)
        if type_ == "put":
            state[key] = obj
        else:
            del state[key]
        self.states.append(state)
        self.changes.append(Change(len(self.changes) + 1, type_, "Function", obj))  # type: ignore[arg-type]

    @rule(namespace=NAMESPACES, name=NAMES)
    def create(self, namespace: str, name: str) -> None:
        taken = (namespace, name) in self.states[-1]
        try:
            made = self.runner.run(self.bed.store.create(function(name, namespace)))
        except Conflict:
            assert taken
        else:
            assert not taken
            self.note("put", made)

    @rule(namespace=NAMESPACES, name=NAMES, label=st.sampled_from(["x", "y"]))
    def update(self, namespace: str, name: str, label: str) -> None:
        known = self.states[-1].get((namespace, name))
        obj = known or function(name, namespace)
        wanted = msgspec.structs.replace(obj, meta=msgspec.structs.replace(obj.meta, labels={"l": label}))
        try:
            made = self.runner.run(self.bed.store.update(wanted))
        except NotFound:
            assert known is None
        else:
            assert known is not None
            if known.meta.labels != {"l": label}:
                self.note("put", made)
            else:
                assert made == known

    @rule(namespace=NAMESPACES, name=NAMES)
    def delete(self, namespace: str, name: str) -> None:
        known = self.states[-1].get((namespace, name))
        try:
            gone = self.runner.run(self.bed.store.delete("Function", namespace, name))
        except NotFound:
            assert known is None
        else:
            assert known is not None
            self.note("delete", gone)

    @rule(namespace=st.none() | NAMESPACES, limit=st.integers(1, 4))
    def begin_list(self, namespace: str | None, limit: int) -> None:
        page = self.runner.run(self.bed.store.page("Function", namespace, limit=limit))
        assert page.version == len(self.changes)
        self.list = (namespace, page.version, page.cursor, list(page.items))
        self._end_list()

    @precondition(lambda self: self.list is not None)
    @rule(limit=st.integers(1, 4))
    def continue_list(self, limit: int) -> None:
        assert self.list is not None
        namespace, version, cursor, items = self.list
        try:
            page = self.runner.run(self.bed.store.page("Function", namespace, limit=limit, cursor=cursor))
        except Expired:
            assert version < len(self.changes) - KEEP
            self.list = None
            return
        assert page.version == version
        self.list = (namespace, version, page.cursor, items + list(page.items))
        self._end_list()

    def _end_list(self) -> None:
        assert self.list is not None
        namespace, version, cursor, items = self.list
        if not cursor:
            state = self.states[version]
            assert items == [state[key] for key in sorted(state) if namespace in (None, key[0])]
            self.list = None

    @rule(back=st.integers(0, KEEP))
    def watch(self, back: int) -> None:
        after = max(0, len(self.changes) - back)

        async def told() -> list[Change]:
            async with watching(self.bed.store, after) as changes:
                return await take(changes, len(self.changes) - after)

        assert self.runner.run(told()) == self.changes[after:]

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.bed.reopen(KEEP))

    @invariant()
    def the_version_is_the_models(self) -> None:
        assert self.runner.run(self.bed.store.version()) == len(self.changes)


TestStoreModel = StoreMachine.TestCase
TestStoreModel.settings = settings(
    max_examples=15, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
