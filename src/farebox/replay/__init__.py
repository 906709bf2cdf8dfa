"""Replay: recorded calls once more, through another configuration: what they would have cost, and where they would have gone.

    history.py    how quick each offer was, from the records
    planning.py   one configuration: from what is recorded of a call to the offer that it goes to, and its price
    replaying.py  two configurations side by side over many calls, added up

Nothing is sent, and no prompt is needed: who called, what was asked for, how many tokens it came to and how long it took are
enough. What they cannot tell is left out, counted and named.
"""
