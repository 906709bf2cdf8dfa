"""A deterministic simulation of the whole gateway: real code, virtual time, one seed that decides everything."""
