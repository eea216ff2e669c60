"""May this order leave the house: limits, manager, correlation, circuit breaker, metrics.

Nothing here does IO, logs, reads a clock or draws randomness. Compiled by mypyc.
"""
