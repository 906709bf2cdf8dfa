"""Complexity: how hard a request is, so that an easy one goes to a cheap model and a hard one to a strong one. Pure.

    excerpt.py    what is looked at, within bounds
    lexicon.py    words that tell, in five languages
    weights.py    what each feature is worth, and where the tiers lie
    classify.py   features → score → tier, with reasons

It is an estimate from the outside of a request. docs/complexity.md says how well it does on requests that it was not made with.
"""
