"""Catalog: which models exist, who sells them and at what dated price. Facts as data; no I/O but reading them."""
