"""One life of a guarded session as a process of its own, which kills itself where it is told.

It lets the mark of what it holds first fall near to where that is liquidated. Words: folder, port
of the venue, port of its operator's door, when around the order of protection, and whether.
"""

import json
import os
import signal
import sys
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from test_futures_drill import HOURS_KILLED, Contracts
from test_futures_guard import Guarded

from bot4_runtime.clock import NS_PER_MS


def main() -> None:
    folder, port, door, when, kill = sys.argv[1:]
    fallen = Path(folder) / "fallen"

    def dies(moment: str, action: str) -> bool:
        if kill and (moment, action) == (when, "submit emergency"):
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    def ask(what: str, **told: str) -> None:
        call = urllib.request.Request(
            f"http://127.0.0.1:{door}/_admin/{what}",
            data=json.dumps(told).encode() if told else None,
            method="POST",
        )
        urllib.request.urlopen(call, timeout=30).close()

    def fall(drill: Guarded, _number: int) -> None:
        wallets = drill.guard._monitor.wallets
        if wallets and not fallen.exists():
            fallen.touch()
            [leg] = wallets[0].legs
            dies_at = wallets[0].liquidation_price(leg)
            mark = leg.entry_price - (leg.entry_price - dies_at) * 0.92
            ask("script", symbol=leg.symbol, mark=f"{mark:.2f}")

    drill = Guarded(Path(folder), hours=HOURS_KILLED, dies=dies, script=fall)

    def advance(to_ms: int) -> bool:
        ask(f"advance?to_ms={to_ms}")
        drill.clock.advance_to(max(to_ms * NS_PER_MS, drill.clock.now_ns()))
        drill.wait_for_marks(to_ms)
        return True

    drill.course = Contracts(
        drill.source,
        drill.hours,
        advance=advance,
        stirred=lambda: False,
        connected=lambda: drill.client.following,
        calm=lambda: None,
        noted=lambda _: None,
    )
    drill.live(int(port))


if __name__ == "__main__":
    main()
