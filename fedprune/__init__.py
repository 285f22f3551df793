"""fedprune: every edge device its own small vision transformer, from a report that holds no image."""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import `load_edge_model` when it is first asked for: torch takes seconds."""
    if name == "load_edge_model":
        from fedprune.protocol.storage import load_edge_model

        return load_edge_model
    raise AttributeError(f"module 'fedprune' has no attribute {name!r}")
