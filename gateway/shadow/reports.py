"""What became of copies, until control has heard of it.

Comparisons add up here, of each pair of versions, and leave as one report. While control is away they go on adding up:
a comparison takes the same room whatever it has seen. Only what was sent is counted in the rings as told, so that what
a killed process had not sent is found there as lost.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.messages import ComparisonReport, PairReport
from runtime.shadow.comparison import PairComparison
from runtime.shadow.copied_pair import CopiedPair
from runtime.shadow.outputs import ComparableOutputs
from runtime.shadow.pair import Array, Copy
from runtime.shadow.ring_layout import COMPARED, FAILED, Shed
from runtime.shadow.ring_reader import CopyReader, PairSlot

log = logging.getLogger(__name__)

REPORT_BYTES = 16 * 1024 * 1024
"""Of comparisons in one message: a frame holds four times as much, and base64 adds a third."""

OnSent = Callable[[bool], None]
Deliver = Callable[[ComparisonReport, OnSent], None]


@dataclass(slots=True)
class Account:
    """Of one pair since its last report. `outcomes`: by its place in each worker's ring."""

    comparison: PairComparison
    comparable: ComparableOutputs | None = None
    outcomes: dict[PairSlot, Counter[str]] = field(default_factory=dict)

    def count(self, slot: PairSlot, outcome: str, requests: int) -> None:
        self.outcomes.setdefault(slot, Counter())[outcome] += requests


class Reports:
    """`counters` names this process's memory. On one thread, but for what `deliver` calls back."""

    def __init__(self, counters: str, readers: Sequence[CopyReader], deliver: Deliver) -> None:
        self._counters = counters
        self._readers = readers
        self._deliver = deliver
        self._accounts: dict[CopiedPair, Account] = {}
        self._under_way: list[tuple[CopiedPair, Account]] = []
        self._refused = False
        self.counted = 0
        """Requests, of any outcome, in all."""
        self.delivered = threading.Event()
        self.delivered.set()

    def compared(
        self,
        slot: PairSlot,
        comparable: ComparableOutputs,
        copy: Copy,
        answers: Mapping[str, Array],
        run_ns: int,
    ) -> None:
        account = self._account(slot, comparable)
        account.comparison.compare(copy, answers, run_ns)
        self._count(account, slot, COMPARED, len(copy.rows))

    def failed(self, slot: PairSlot, comparable: ComparableOutputs, copy: Copy, why: str) -> None:
        account = self._account(slot, comparable)
        account.comparison.fail(copy, why)
        self._count(account, slot, FAILED, len(copy.rows))

    def shed(self, slot: PairSlot, reason: Shed, requests: int) -> None:
        account = self._account(slot, None)
        account.comparison.shed(reason.value, requests)
        self._count(account, slot, reason.value, requests)

    def _count(self, account: Account, slot: PairSlot, outcome: str, requests: int) -> None:
        account.count(slot, outcome, requests)
        self.counted += requests

    def send(self) -> None:
        """What has come since the last report; nothing while that one is still on its way."""
        if self._refused:
            for pair, account in self._under_way:
                self._take_back(pair, account)
            self._under_way, self._refused = [], False
        if self._under_way or not self._accounts:
            return
        reports: list[PairReport] = []
        size = 0
        for pair, account in list(self._accounts.items()):
            delta = account.comparison.to_bytes()
            size += len(delta)
            if reports and size > REPORT_BYTES:
                break
            reports.append(_pair_report(pair, delta))
            self._under_way.append((pair, self._accounts.pop(pair)))
        self.delivered.clear()
        self._deliver(ComparisonReport(counters=self._counters, pairs=tuple(reports)), self._on_sent)

    def _on_sent(self, sent: bool) -> None:
        """On the link's thread, at once: what is sent and not told counts as lost should this process be killed."""
        if sent:
            for _, account in self._under_way:
                for slot, outcomes in account.outcomes.items():
                    self._readers[slot.ring].tell(slot, outcomes)
            self._under_way = []
        else:
            self._refused = True
        self.delivered.set()

    def _take_back(self, pair: CopiedPair, account: Account) -> None:
        since = self._accounts.get(pair)
        if since is not None:
            account.comparison.merge(since.comparison)
            account.comparable = account.comparable or since.comparable
            for slot, outcomes in since.outcomes.items():
                account.outcomes.setdefault(slot, Counter()).update(outcomes)
        self._accounts[pair] = account

    def _account(self, slot: PairSlot, comparable: ComparableOutputs | None) -> Account:
        """What is shed of a pair needs no outputs to compare; once there are some, it goes on with them."""
        described = slot.described
        account = self._accounts.get(described)
        if account is None:
            account = Account(PairComparison(described.key, described.settings, comparable), comparable)
            self._accounts[described] = account
        elif comparable is not None and account.comparable is not comparable:
            judging = PairComparison(described.key, described.settings, comparable)
            judging.merge(account.comparison)
            account.comparison, account.comparable = judging, comparable
        return account


def _pair_report(pair: CopiedPair, delta: bytes) -> PairReport:
    key = pair.key
    return PairReport(
        model=key.model,
        primary=key.primary,
        primary_digest=key.primary_digest,
        shadow=key.shadow,
        shadow_digest=key.shadow_digest,
        delta=delta,
    )
