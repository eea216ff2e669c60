"""A Binance-compatible spot exchange on loopback, for tests and rehearsals. It is no market.

The core is pure: accounts, books, matching, filters and the tape take their time from a clock
that is handed in and do no IO. `rest` and `stream` turn Binance's messages into calls of the
core and back; `server` is the thin shell that listens on 127.0.0.1. What happened is in the
venue's own journal, which outlives the client and is what tests judge the client by.

Shapes, codes and texts follow binance/binance-spot-api-docs at a5e0bc3 (2026-07-17).
"""
