"""The pairs of models a session may use: pointed at, opened, checked against what it trades.

Files are trusted by `regime.loader` alone; here a pair is held against symbols, market and mode
of this session. When one is tried, trades or is left is `promoted`'s business.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bot4_runtime.domain.candle import Market, Origin
from bot4_runtime.domain.errors import ModelError
from bot4_runtime.domain.evidence import EvidenceRecord
from bot4_runtime.domain.regime import HmmMode
from bot4_runtime.regime.evidence import evidence_path, read_evidence
from bot4_runtime.regime.manifest import ModelKind
from bot4_runtime.regime.pair import ModelPair
from bot4_runtime.regime.registry import CurrentPair, ModelRegistry

Shas = tuple[str, str]
"""The HMM's file and the LSTM's; the latter is empty when the HMM is alone."""


class ModelShelf:
    """The registry's pairs of one interval, as far as a session may use them.

    Args:
        symbols: what is traded: a pair that may not be used on them is refused.
        mode: how the HMM names regimes: a pair that cannot is refused.
        market: where; a pair of another market is refused.
        simulated: whether a pair that learnt from simulated candles may be used.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        interval: str,
        symbols: Sequence[str],
        *,
        mode: HmmMode,
        market: Market | None,
        simulated: bool,
    ) -> None:
        self._registry = registry
        self._interval = interval
        self._symbols = tuple(symbols)
        self._mode = mode
        self._market = market
        self._simulated = simulated

    def pointed(self) -> CurrentPair | None:
        """Return what the pointer names; None where it names nothing or is unreadable."""
        try:
            return self._registry.current(self._interval)
        except ModelError:
            return None

    def promoted(self) -> CurrentPair:
        """Return what the pointer names.

        Raises:
            ModelError: it names nothing, or is unreadable.
        """
        return self._registry.promoted(self._interval)

    def open(self, shas: Shas, now_ms: int) -> ModelPair:
        """Open a pair that may be used here; `now_ms` is UTC.

        Raises:
            ModelError: a file does not hold or has expired, it is of another market or of
                simulated candles, or may not be used on a symbol.
        """
        pair = self._registry.open(self._interval, *shas, now_ms)
        market = pair.deciding.market
        if self._market is not None and market is not self._market:
            raise ModelError(
                f"the {self._interval} models were trained on the {market.value} market; expected "
                f"{self._market.value}: promote models of that market, or set runtime.market"
            )
        if pair.deciding.origin is Origin.SIMULATED and not self._simulated:
            raise ModelError(
                f"the {self._interval} models were trained on simulated candles; expected real "
                "ones at a venue outside this machine: train on them and promote, or trade on "
                "paper"
            )
        for symbol in self._symbols:
            pair.require(symbol)
        if self._mode is HmmMode.LOOKAHEAD:
            pair.look_ahead()
        return pair

    def shas_of(self, deciding_sha256: str) -> Shas:
        """Return the pair whose estimates carry this file's hash.

        Raises:
            ModelError: there is no such file.
        """
        manifest = self._registry.manifest(deciding_sha256)
        if manifest.kind is ModelKind.HMM:
            return deciding_sha256, ""
        return manifest.hmm_sha256, deciding_sha256

    def evidence(self, pair: ModelPair) -> Mapping[str, EvidenceRecord]:
        """Return the records made with a pair, by rule id.

        Raises:
            DataError: the file is unreadable.
        """
        return read_evidence(self._evidence_path, *shas(pair))

    def stamp(self) -> tuple[object, int]:
        """Return what changes when a pair is promoted or evidence is written."""
        try:
            written_ns = self._evidence_path.stat().st_mtime_ns
        except OSError:
            written_ns = 0
        return self._registry.pointer_stamp(), written_ns

    @property
    def _evidence_path(self) -> Path:
        return evidence_path(self._registry.root, self._interval)


def shas(pair: ModelPair) -> Shas:
    """Return the files of a pair."""
    return pair.hmm_sha256, pair.lstm_sha256
