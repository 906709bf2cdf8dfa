"""How well requests are sorted into easy, medium and hard: labelled requests, and what the classifier makes of them."""
