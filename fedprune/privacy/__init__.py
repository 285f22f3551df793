"""Mechanisms that guard a report (one file each), their calibration, the ledger."""
