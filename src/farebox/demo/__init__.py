"""A month of an invented organisation, played through the real thing: `farebox demo --month`.

The gateway is the one that serves (`processes.worker.serve`, the bookkeeper, their journal, holds and ledger), the providers are
the simulator, and every call is HTTP on the loopback. Only the wall clock is moved, so that the month is over within a minute.

    organisation   who calls what: projects, keys, models            (data)
    traffic        the month's calls, as a seed wants them           (pure)
    clock          a wall clock that is moved
    stage          simulator, worker, bookkeeper and their client, in one event loop
    receiver       who is told of alerts
    happenings     what is not a call: a price change, an outage, a month's end
    month          all of it, in order
    papers         what is left to look at

Nothing of Farebox knows this package, but the command that runs it.
"""
