"""A Binance-compatible exchange on loopback, for tests and rehearsals. It is no market.

The core is pure: accounts, books, matching, filters and the tape take their time from a clock
that is handed in and do no IO. `rest` and `stream` turn Binance's messages into calls of the
core and back; `server` is the thin shell that listens on 127.0.0.1. What happened is in the
venue's own journal, which outlives the client and is what tests judge the client by.

`loopback` is the spot market, `futures_loopback` the USD-M one: perpetuals in single-asset
mode, with positions, margin, funding, liquidation and ADL in the modules named `futures_`.
It has no multi-assets mode, no price match, no RPI orders and no delivery contracts, and a
liquidation closes a position whole, where Binance goes down by brackets.

Shapes, codes and texts follow binance/binance-spot-api-docs at a5e0bc3 (2026-07-17), and
Binance's USD-M documentation as of 2026-05-28.
"""
