"""Candles become numbers here: one definition, in a batch and in an incremental form."""
