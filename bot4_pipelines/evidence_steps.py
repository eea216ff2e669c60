"""The last steps: the figures of the promoted pair, and the evidence for each rule."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bot4_pipelines.records import digest, now_ms, source_sha256
from bot4_pipelines.step_numbers import evidence_rows
from bot4_pipelines.steps import Made, Outcome
from bot4_pipelines.workbench import TRAINING, Workbench, ids_of, promoted_pair
from bot4_runtime.domain.candle import SeriesId
from bot4_runtime.domain.errors import DataError

if TYPE_CHECKING:
    from bot4_runtime.regime.manifest import Manifest
    from bot4_runtime.regime.registry import CurrentPair

EVIDENCE_SEED: Final = 20_180_101


class EvidenceSteps(Workbench):
    """What the promoted pair is worth, and what following it would have brought."""

    def evaluation(self) -> Outcome:
        """Score the promoted pair on every range of candles, against the goals.

        Raises:
            ModelError: nothing is promoted.
        """
        candles = self._candles
        interval = str(candles.numbers["interval"])
        promoted = promoted_pair(self._registry, interval)
        stamp = digest("evaluation", candles.content, promoted.shas, source_sha256(*TRAINING))

        def work() -> Made:
            from bot4_pipelines.training.evaluation_report import evaluation_report

            series = [self._store.read(one) for one in ids_of(candles)]
            pair = self._registry.load(interval)
            numbers, plots = evaluation_report(pair, series, self.report)
            return digest(numbers), numbers, plots

        return self._steps.run("evaluation", stamp, work, [])

    def evidence_records(self) -> Outcome:
        """Follow every built-in rule through training and validation; write its record.

        Raises:
            ModelError: nothing is promoted.
            DataError: the candles are not of the promoted pair's market or origin.
        """
        from bot4_runtime.regime.evidence import evidence_path

        candles = self._candles
        interval = str(candles.numbers["interval"])
        pair = promoted_pair(self._registry, interval)
        _check_alike(ids_of(candles), self._registry.manifest(pair.hmm_sha256))
        code = source_sha256(
            "bot4_pipelines.training.evidence",
            "bot4_runtime.regime.evidence",
            "bot4_runtime.strategy.rules",
            "bot4_runtime.signals.statistics",
        )
        stamp = digest("evidence", candles.content, pair.shas, code)
        path = evidence_path(self.folders.models, interval)

        def work() -> Made:
            return self._evidence(pair, path)

        return self._steps.run("evidence_records", stamp, work, [path])

    def _evidence(self, pair: "CurrentPair", path: Path) -> Made:
        from bot4_pipelines.training.evidence import FillCosts, build_evidence, walk_forward
        from bot4_pipelines.training.hmm import fit_hmm
        from bot4_pipelines.training.plots import rule_evidence
        from bot4_runtime.regime.evidence import write_evidence
        from bot4_runtime.regime.hmm import forward_filter

        cuts = self._registry.manifest(pair.hmm_sha256).cuts
        tables = {one.symbol: self._table(one) for one in ids_of(self._candles)}
        series = {
            one.symbol: self._candles_of(one, tables[one.symbol]) for one in ids_of(self._candles)
        }
        self.report("walking the filter forward", 0.1)
        regimes = walk_forward(
            tables,
            cuts,
            lambda runs: fit_hmm(runs).params,
            lambda z, params: forward_filter(z, params)[0],
        )
        self.report("following the rules", 0.6)
        records = build_evidence(
            regimes,
            series,
            costs=FillCosts(),
            cuts=cuts,
            seed=EVIDENCE_SEED,
            now_ms=now_ms(),
            hmm_sha256=pair.hmm_sha256,
            lstm_sha256=pair.lstm_sha256,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_evidence(path, records)
        rules = evidence_rows(records)
        drawn = {
            record.rule_id: (record.mean_net, record.p_value_bh)
            for record in records
            if record.mean_net is not None
        }
        plots = {"net_return_by_rule": rule_evidence(drawn)} if drawn else {}
        content = digest(rules)
        return content, {"file": str(path), "rules": rules}, plots


def _check_alike(ids: Sequence[SeriesId], manifest: "Manifest") -> None:
    """Refuse candles that say nothing of a pair: simulated ones of a real pair, and the like."""
    wanted = f"{manifest.origin.value} {manifest.market.value}"
    foreign = [
        one.key for one in ids if (one.origin, one.market) != (manifest.origin, manifest.market)
    ]
    if foreign:
        raise DataError(
            f"no evidence is written: the candles {' '.join(foreign)} are not {wanted}, on which "
            "the promoted models were trained; ingest such candles, or promote models of these"
        )
