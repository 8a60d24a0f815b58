"""When a search stops before it has the candidates that it was asked for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

STALLED = 1000  # proposals in a row without progress, where no student is within the budget
SLOW = 400  # of them, where they take longer than `SLOW_SECONDS`
SLOW_SECONDS = 30.0
LEAST = 200  # of them, where students were found
FACTOR = 20  # times the proposals that one found student took
REPEATED = 50  # proposals in a row of known architectures: the sampler has no others
MAX_FAILED = 20  # failed candidates without a scored one


@dataclass
class Stall:
    """Count of the proposals in a row without progress.

    A proposal is progress if it is a new student within the budget, or nearer to the budget than
    all before.

    Attributes:
        proposals: Number of proposals in a row without progress.
        repeated: Number of the last proposals whose architectures were known.
        exhausted: Whether the sampler has said that it has no other proposals.
        since: Time of the last progress in seconds, as `time.monotonic` gives it.
    """

    proposals: int = 0
    repeated: int = 0
    exhausted: bool = False
    since: float = field(default_factory=time.monotonic)

    def add(self, *, progress: bool, new: bool) -> None:
        """Count a proposal that has ended.

        Args:
            progress: Whether it is progress.
            new: Whether its architecture was not known.
        """
        self.proposals = 0 if progress else self.proposals + 1
        self.repeated = 0 if new else self.repeated + 1
        self.since = time.monotonic() if progress else self.since

    def reason(self, outcomes: Mapping[str, int]) -> str:
        """Say why the search should stop; empty if it should not.

        Where students were found, the search has the patience of `FACTOR` times as many proposals
        as one of them took. So a search ends soon after it has all students within the budget.

        Args:
            outcomes: Number of trials by outcome.
        """
        if self.exhausted:
            return "the sampler has no other proposals"
        found = outcomes["scored"] + outcomes["failed"]
        if outcomes["failed"] >= MAX_FAILED and not outcomes["scored"]:
            return f"all of {outcomes['failed']} candidates failed"
        if self.repeated >= REPEATED:
            return f"the last {self.repeated:,} proposals were known, and the sampler has no others"
        if found:
            each = (sum(outcomes.values()) - self.proposals) / found
            patience = min(STALLED, max(LEAST, FACTOR * each))
        else:
            slow = time.monotonic() - self.since > SLOW_SECONDS
            patience = SLOW if slow else STALLED
        if self.proposals < patience:
            return ""
        return f"the last {self.proposals:,} proposals gave no new student within the budget"
