"""Flower: the ClientApp, the Strategy and the engines. The only room that imports flwr."""

import logging
import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # flwr reads it when it is imported
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

import flwr.app  # noqa: F401  (its import sets the log level that the next line changes)

logging.getLogger("flwr").setLevel(logging.WARNING)
