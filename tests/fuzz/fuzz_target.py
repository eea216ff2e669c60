"""What is fuzzed: a decoder, the errors it may raise, and messages it reads."""

from collections.abc import Callable
from typing import NamedTuple


class Target(NamedTuple):
    """One decoder.

    Attributes:
        name: as `make fuzz TARGET=` takes it.
        read: takes a message; whatever it raises beside `refusals` is a fault of the decoder.
        refusals: errors by which it says that a message is none.
        seeds: messages that it reads.
    """

    name: str
    read: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]

    def tried(self, message: bytes) -> bool:
        """Tell whether a message was read, not refused; raises what the decoder must not."""
        try:
            self.read(message)
        except self.refusals:
            return False
        return True
