"""Comparisons of two sets of results: what differs, and whether by more than chance."""
