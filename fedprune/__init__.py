"""fedprune: every edge device its own small vision transformer, from a report that holds no image."""

__version__ = "0.1.0"
