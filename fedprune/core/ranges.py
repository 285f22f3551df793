"""Ranges of settings, refused when an option is built and not when a device needs it."""


def at_least(option: object, least: float, *names: str) -> None:
    """Raise ValueError where a field of `option` is below `least`, or no number; None counts as not set."""
    for name in names:
        value = getattr(option, name)
        if value is not None and not value >= least:
            raise ValueError(f"{name} is {value}; it must be at least {least}.")
