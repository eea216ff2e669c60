"""One life of the drill of contracts as a process of its own, which kills itself where it is told.

Words: folder, port of the venue, port of its operator's door, what is done, when, and how often it
is let pass before the kill.
"""

import os
import signal
import sys
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from test_futures_drill import HOURS_KILLED, Contracts, Drill

from bot4_runtime.clock import NS_PER_MS


def main() -> None:
    folder, port, door, what, when, number = sys.argv[1:]
    passed = []

    def dies(moment: str, action: str) -> bool:
        if (moment, action) == (when, what):
            passed.append(action)
            if len(passed) > int(number):
                os.kill(os.getpid(), signal.SIGKILL)
        return False

    drill = Drill(Path(folder), hours=HOURS_KILLED, dies=dies)

    def advance(to_ms: int) -> bool:
        url = f"http://127.0.0.1:{door}/_admin/advance?to_ms={to_ms}"
        urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=30).close()
        drill.clock.advance_to(max(to_ms * NS_PER_MS, drill.clock.now_ns()))
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
