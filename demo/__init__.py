"""Drawn sample studies, and a run of the whole program on them."""
