"""Ctrl-C while a program is still loading: one line and exit code 130.

A KeyboardInterrupt inside an import surfaces anywhere, as a traceback of somebody else's module.
Nothing that would have to be undone has begun by then, so the process leaves at once. Imports
next to nothing: it is there before everything else.
"""

import os
import signal

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended: 128 and the number of SIGINT."""


class Loading:
    """Within it, Ctrl-C leaves without a traceback; other handlers of the signal stay."""

    def __enter__(self) -> None:
        self._ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._ours:
            signal.signal(signal.SIGINT, _leave)

    def __exit__(self, *_: object) -> None:
        if self._ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(*_: object) -> None:
    os.write(2, b"bot4-runtime: interrupted before it began\n")
    os._exit(INTERRUPTED)
