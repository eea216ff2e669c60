"""The composition root: the only room, beside the command line, that names adapters.

`wiring` turns settings and `options` into a `run`; `source`, `store`, `promoted`, `costs` and
`accepted` make its parts, `notices` says what the user should know of them. It keeps nothing of
its own.
"""

from bot4_runtime.app.options import RunOptions
from bot4_runtime.app.run import Run
from bot4_runtime.app.wiring import build

__all__ = ["Run", "RunOptions", "build"]
