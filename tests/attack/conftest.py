"""Attacks run against the small real experiment of the federation's tests."""

from tests.federation.conftest import configure, no_faults, run_strategy, set_faults, small_config  # noqa: F401
