"""The one table of kinds: what can be chosen, in the order in which data walks through the rooms."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of option.

    Attributes:
        room: The package whose files hold its options.
        plural: What `fedprune list` calls them.
    """

    room: str
    plural: str


KINDS: dict[str, Kind] = {
    "data": Kind("fedprune.data", "data"),
    "partition": Kind("fedprune.data", "partitions"),
    "base": Kind("fedprune.vit", "bases"),
    "tokens": Kind("fedprune.tokens", "tokens"),
    "budgets": Kind("fedprune.devices", "budgets"),
    "clock": Kind("fedprune.devices", "clocks"),
    "features": Kind("fedprune.mixture", "features"),
    "mixture": Kind("fedprune.mixture", "mixtures"),
    "mechanism": Kind("fedprune.privacy", "mechanisms"),
    "selector": Kind("fedprune.proxy", "selectors"),
    "cohorts": Kind("fedprune.cohorts", "cohorts"),
    "method": Kind("fedprune.pruning", "methods"),
    "recovery": Kind("fedprune.recovery", "recovery"),
    "personal": Kind("fedprune.recovery", "personal"),
    "attack": Kind("fedprune.attacks", "attacks"),
    "engine": Kind("fedprune.federation", "engines"),
    "measurement": Kind("fedprune.study", "measurements"),
}
