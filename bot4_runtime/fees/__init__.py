"""What a trade costs: dated schedules, the calculator, and where to send an order.

Nothing here does IO, reads a clock or knows the other rooms: dates and rates are arguments.

At work in a run: `schedules` of Binance by date, `calculator` for paper fills, the expected costs
of a signal and the order type, `tier` for the volume of 30 days, `summary` for ``bot4-runtime
fees``. Complete and tested, but called by nothing in a run yet, since a run knows one venue and
no account of its own there: `account` with `FeeCalculator.set_account_commission`, rebate
programmes, `optimizer.optimize_order_routing`, `ccxt_tables`.
"""
