"""Bytes from Binance, from a folder or from the built-in market → clean candles in the store.

Nothing here knows of Dagster.
"""
