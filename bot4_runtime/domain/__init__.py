"""The vocabulary both programs share: frozen values, closed sets, one exception tree.

Nothing here does IO, logs, reads a clock or draws randomness.
"""
