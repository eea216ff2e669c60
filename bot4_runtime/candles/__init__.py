"""Candles in columns: reading them, keeping them, and the rules of their gaps.

Shared by both programs. Judging whether candles are good is `bot4_pipelines.ingest.quality`.
"""
