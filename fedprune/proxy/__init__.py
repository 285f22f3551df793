"""Selectors that choose a proxy set from the public pool (one file each), and measures of its quality."""
