"""The vault: secrets of customers that have to be used, and so cannot be kept as digests; sealed where they lie.

`envelope` seals and opens (pure), `master_file` keeps the keys that it takes, `vault` is the two together.
"""
