"""What the scaler remembers of one revision between two looks at it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from septet.model.errors import SeptetError
from septet.model.function import Revision
from septet.model.instance import ColdReason
from septet.policy import autoscale, retry
from septet.policy.retry import Backoff


class Standing:
    """`emptied` is why it has no instance; `failures` counts failed starts in a row, `retry_at` is when the next
    may be tried; `full_since` is since when there is no room for it; `kept_until` is until when an instance is
    kept although nothing calls it, `prewarm_at` when one is started for a call that is expected (0: none)."""

    def __init__(self, emptied: ColdReason) -> None:
        self.emptied: ColdReason = emptied
        self.memory: autoscale.Memory | None = None
        self.failures = 0
        self.calls = 0
        self.retry_at = 0.0
        self.error: SeptetError | None = None
        self.full_since: float | None = None
        self.kept_until = 0.0
        self.prewarm_at = 0.0
        self.proof: asyncio.Future[None] | None = None
        self.tried_since = 0.0
        self._need = 1
        self._settings: autoscale.Settings | None = None

    def configure(self, revision: Revision, concurrency: Callable[[Revision], int]) -> autoscale.Settings:
        """The revision's settings, worked out once: it is immutable. Raises InvalidInput."""
        if self._settings is None:
            self._settings = autoscale.settings_of(revision.spec.template.scale, concurrency(revision))
        return self._settings

    def sleeps(self, now: float) -> bool:
        """Nothing of it is due, or has failed."""
        due = self.calls or self.on_trial or self.prewarm_at or now < self.kept_until or now < self.retry_at
        return not due and self.memory is None and self.error is None and self.full_since is None

    def succeeded(self) -> None:
        self.failures = 0
        self.retry_at = 0.0
        self.error = None
        self.full_since = None
        self.emptied = "scaled-to-zero"

    def failed(self, error: SeptetError, now: float, backoff: Backoff, number: float) -> None:
        """Instances that started together and fail together count as one failure."""
        self.error = error
        if now >= self.retry_at:
            self.failures += 1
            self.retry_at = now + retry.delay(self.failures, backoff, number)

    # -- the trial of a new revision

    @property
    def on_trial(self) -> bool:
        """Whether the deployer waits for instances of this revision."""
        return self.proof is not None and not self.proof.done()

    def trial(self, need: int, now: float) -> asyncio.Future[None]:
        """Resolves when `need` instances are ready, fails when the revision is given up."""
        if self.proof is None or self.proof.done():
            self.proof = asyncio.get_running_loop().create_future()
            self.tried_since = now
            self.failures = 0
            self.retry_at = 0.0
        self._need = need
        return self.proof

    def prove(self, ready: int) -> None:
        if self.proof is not None and not self.proof.done() and ready >= self._need:
            self.proof.set_result(None)

    def prove_with_less(self) -> None:
        """It has shown that it starts; there is no room for more before the old revision makes some."""
        self.prove(self._need)

    def give_up(self, error: SeptetError) -> None:
        if self.proof is not None and not self.proof.done():
            self.proof.set_exception(error)
