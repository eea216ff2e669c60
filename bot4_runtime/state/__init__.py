"""What we believe and how we remember it.

`trading_state` folds events; `store` is its one writer; `journal` commits batches in groups to a
disk (`sqlite`, `postgres`, in memory); `snapshot` saves time at recovery; `reader` and `verify`
look on without touching; `migrate` brings older layouts up; `series` feeds dashboards.
"""
