"""Processes: what `farebox serve` is made of. A supervisor; gateway workers; one bookkeeper; the local model.

They share nothing but the journals, the database and a few small files in the data folder. Any of them may be killed.
"""
