"""Liquidation prevention at work: positions in, actions out, and a rehearsal of both.

The decisions are made in `bot4_runtime.risk`; here stand the driver that carries them out, what
reads positions that Bot4 did not open, and a simulated USD-M account with its stress replay.
"""
