"""The engine of `start --mode testnet` at a venue on loopback: calm, faulty, and with a bug."""

from bot4_runtime.rehearsal.verdict import Outcome


def test_a_calm_rehearsal_trades_and_both_sides_agree(rehearse) -> None:
    verdict, _ = rehearse()
    print(verdict.text)
    assert verdict.findings.violations == []
    assert verdict.ended == ""
    assert verdict.findings.held > 5
    assert verdict.outcome is Outcome.INCONCLUSIVE
