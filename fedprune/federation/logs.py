"""Where the log lines of devices go: into the run's own log file, also from other processes of this machine.

The file's name travels to simulated devices in the environment; no line ever travels in a message, so a real device
keeps its log to itself.
"""

import logging
import os
from pathlib import Path

from fedprune.core.text import printable

DEVICE_LOG = "FEDPRUNE_DEVICE_LOG"
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class PlainFormatter(logging.Formatter):
    """Writes records without control characters: what a device says must not steer the terminal of who reads."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        return printable(super().format(record))


def log_path() -> Path | None:
    """Return the file that this process's run logs to, if there is one."""
    for handler in logging.getLogger("fedprune").handlers:
        if isinstance(handler, logging.FileHandler):
            return Path(handler.baseFilename)
    return None


def join_log(path: str = "") -> None:
    """Log to `path`, or to the file that the environment names; lines are appended whole."""
    name = path or os.environ.get(DEVICE_LOG, "")
    if not name or log_path() is not None:
        return
    handler = logging.FileHandler(name, encoding="utf-8", errors="backslashreplace", delay=True)
    handler.setFormatter(PlainFormatter(FORMAT))
    logger = logging.getLogger("fedprune")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
