"""Errors that a user sees as one sentence: what is wrong and what to change."""

import importlib
from types import ModuleType


class FedpruneError(Exception):
    """Base of all errors that the command line prints as a sentence, without a traceback."""


class ConfigError(FedpruneError):
    """A wrong key, name, type or range in the configuration."""


class DataError(FedpruneError):
    """Data that is missing, unreadable, or does not fit what was asked of it."""


class ModelError(FedpruneError):
    """A model, checkpoint or shape that cannot be used here."""


class DiskError(FedpruneError):
    """A file that cannot be written: this machine's affair, which ends a run and is never put down to a device."""


class BudgetError(FedpruneError):
    """A budget that no legal edge model meets."""


class ReportRejected(FedpruneError):
    """An upload that the server does not accept; the message is the reason."""


class MissingExtra(FedpruneError):
    """An optional package that is not installed."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional `module`, or say which extra brings it.

    Raises:
        MissingExtra: the module is not installed; the message holds the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"This needs the package {module!r}, which is not installed. "
            f"Install it with: pip install -c constraints.txt 'fedprune[{extra}]'"
        ) from error
