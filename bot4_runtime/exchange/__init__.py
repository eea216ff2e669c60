"""The outside world: what a venue is, the last hop to it, and the paper venue."""
