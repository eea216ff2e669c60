"""Is this signal worth acting on: statistics, biases, and the validator that weighs them.

Pure: no IO, no clock, no logging; randomness comes in as a generator. Compiled by mypyc.
"""
