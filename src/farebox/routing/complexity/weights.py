"""Weights: what each feature of a request is worth in points, and where one tier ends and the next begins. Data.

Those of words and text were fitted by least squares to one half of the labelled requests in `bench/routing`, held near values
set by hand, and rounded; the other half only measures them. What the labelled requests hardly contain (volume, tools, images,
documents, effort, an output cap) is set by hand. docs/complexity.md has this table and the figures.
"""

import msgspec

TIERS = ("easy", "medium", "hard")
"""From the weakest model that will do to the strongest."""


class Weight(msgspec.Struct, frozen=True):
    """Points per unit of a feature, up to `most` units."""

    points: int
    most: int
    meaning: str


BASE = 16
"""Points of a request without any feature."""
MEDIUM_FROM = 27
HARD_FROM = 55
"""Of the limits that sort the first half equally well, the lowest: in doubt a request goes to the stronger model."""
SCORE_MAX = 100

WEIGHTS: dict[str, Weight] = {
    # What is asked, by the words of it.
    "reasoning": Weight(5, 5, "words that ask to judge, argue, compare or weigh"),
    "proof": Weight(22, 2, "words that ask for a proof, a derivation or a counterexample"),
    "maths": Weight(8, 4, "mathematical terms"),
    "programming": Weight(1, 4, "programming terms"),
    "engineering": Weight(15, 4, "terms of concurrency, distribution, migration, scale"),
    "expert": Weight(9, 4, "terms of law, tax, finance, medicine"),
    "dispute": Weight(7, 4, "terms of complaints, refusals, fraud, compensation"),
    "building": Weight(3, 3, "words that ask to design, write or plan something"),
    "lengthy": Weight(14, 3, "words that ask for a long or thorough answer"),
    "constraints": Weight(5, 4, "conditions that the answer has to meet"),
    "lookup": Weight(-5, 3, "words of small talk and of questions that are looked up"),
    # How it is written.
    "length": Weight(5, 10, "half doublings of the message beyond 40 characters; a Chinese one counts as 3, 5 pasted ones as 1"),
    "questions": Weight(4, 3, "question marks after the first"),
    "code": Weight(3, 4, "pasted code: each ten lines"),
    "formula": Weight(4, 4, "formulas: LaTeX, powers, sums, inequalities"),
    # What comes with it.
    "follow_up": Weight(3, 4, "the user's earlier messages, where the last one goes on from them"),
    "volume": Weight(5, 5, "doublings of the whole request beyond 8 KiB"),
    "tools": Weight(1, 4, "tools offered: one, three, seven, fifteen"),
    "images": Weight(6, 2, "images"),
    "documents": Weight(10, 2, "documents"),
    "schema": Weight(4, 1, "an answer as JSON"),
    "effort": Weight(20, 2, "thinking asked for: medium is one, high two"),
    "brief": Weight(-15, 1, "an output cap of at most 64 tokens"),
}
