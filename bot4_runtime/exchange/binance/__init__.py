"""Binance: here its public candles; streams and orders come with the connector."""
