"""What the validator knows of one book: its recent history and the evidence of its rules.

The engine shows it the book as it stands; here it is found what is new since the last time.
"""

from collections.abc import Iterable, Mapping, Sequence

from bot4_runtime.domain.evidence import EvidenceRecord
from bot4_runtime.domain.position import ClosedTrade, Position
from bot4_runtime.signals.evidence import LiveEvidence
from bot4_runtime.signals.history import KEPT, Entry, SignalHistory


class Desk:
    """Follows a book.

    Args:
        records: evidence records by rule id.
        kept: how many trades and entries the book, and so its history, looks back on.
    """

    def __init__(self, records: Mapping[str, EvidenceRecord], kept: int = KEPT) -> None:
        self.history = SignalHistory(kept=kept)
        self._evidence: dict[str, LiveEvidence] = {}
        self._trades_seen: int = 0
        self._last_entry: Entry | None = None
        self._since_ns: int = -1
        self.believe(records)

    def believe(self, records: Mapping[str, EvidenceRecord]) -> None:
        """Judge by these records from now on; trades since their periods count again."""
        self._evidence = {rule: self._live(record) for rule, record in records.items()}

    def evidence(self, rule_id: str) -> LiveEvidence | None:
        """Return what is known of a rule, None when nothing is."""
        return self._evidence.get(rule_id)

    def follow(
        self,
        trades: Sequence[ClosedTrade],
        trades_total: int,
        entries: Sequence[Entry],
        positions: Iterable[Position],
        marks: Mapping[str, float],
        since_ns: int,
    ) -> None:
        """Take in what happened since the last call.

        Args:
            trades: the book's last closed trades, oldest first; as many as it keeps.
            trades_total: all it ever closed.
            entries: its last entries, oldest first.
            positions: what it holds.
            marks: last price by symbol.
            since_ns: from when on the book is traded: live days count from there; -1 when unknown.

        Raises:
            DataError: a trade or entry is not finite.
        """
        if since_ns != self._since_ns:
            self._since_ns = since_ns
            self.believe({rule: known.record for rule, known in self._evidence.items()})
        fresh = min(trades_total - self._trades_seen, len(trades))
        for i in range(len(trades) - fresh, len(trades)):
            self._close(trades[i])
        self._trades_seen = trades_total
        unseen = len(entries)
        while unseen > 0 and entries[unseen - 1] is not self._last_entry:
            unseen -= 1
        for i in range(unseen, len(entries)):
            self.history.enter(entries[i])
        if len(entries):
            self._last_entry = entries[len(entries) - 1]
        self.history.hold(positions)
        self.history.marks = marks

    def _close(self, trade: ClosedTrade) -> None:
        evidence = self._evidence.get(trade.rule_id)
        if evidence is not None:
            evidence.observe(trade)
        forgotten = self.history.close(trade)
        if forgotten is None:
            return
        of_forgotten = self._evidence.get(forgotten.rule_id)
        if of_forgotten is not None and of_forgotten.counts(forgotten):
            self._evidence[forgotten.rule_id] = self._live(of_forgotten.record)

    def _live(self, record: EvidenceRecord) -> LiveEvidence:
        evidence = LiveEvidence(record, self.history.trades)
        if self._since_ns >= 0:
            evidence.begin(self._since_ns)
        return evidence
