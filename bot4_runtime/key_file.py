"""Files of keys: read whole, small, and where the key is private, readable by its owner alone."""

import os
import stat
from pathlib import Path
from typing import Final

from bot4_runtime.domain.errors import ConfigError

MAX_BYTES: Final = 16_384


def read_key_file(path: Path, variable: str, *, private: bool) -> bytes:
    """Read a file of a key.

    Args:
        path: of the file.
        variable: names it to the user.
        private: refuse a file that others may read or change.

    Raises:
        ConfigError: it is not readable, not private, or no file of a key by its size.
    """
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            if private and stat.S_IMODE(mode) & 0o077:
                raise ConfigError(
                    f"{variable}: {path} has mode {stat.S_IMODE(mode):04o}, others may read or "
                    f"change it; expected 0600: chmod 600 {path}"
                )
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{variable}: {path} is not readable ({error.strerror})") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{variable}: {path} is longer than {MAX_BYTES} bytes; no key is")
    return data
