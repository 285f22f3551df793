"""The small real experiment, with a journal in a folder of its own."""

from tests.federation.conftest import configure, small_config  # noqa: F401
