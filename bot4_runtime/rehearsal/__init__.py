"""A run of the real engine at a venue on loopback where things go wrong, and what became of it.

The engine is the one of ``start --mode testnet``, with the user's own settings and models. The
market is invented, time is the venue's and runs faster than the machine's, the account's journal
lies in a folder of its own that goes with the rehearsal.
"""
