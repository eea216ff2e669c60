"""Binance: market streams and candles, spot orders, and the account's user stream."""
