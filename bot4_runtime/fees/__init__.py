"""What a trade costs: dated schedules, the calculator, and where to send an order.

Nothing here does IO, reads a clock or knows the other rooms: dates and rates are arguments.
"""
