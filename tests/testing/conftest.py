import re

import pytest

from fedprune.core import registry
from fedprune.testing import checks_of


@pytest.fixture
def register(monkeypatch):
    """Register an option for the time of a test."""

    def add(kind, cls):
        known = {**registry.registered(kind), cls.__name__.lower(): cls}
        monkeypatch.setattr(registry, "_registered", registry._registered | {kind: known})
        cls.name = cls.__name__.lower()
        return cls()

    return add


@pytest.fixture
def hears(register):
    """Ask a wrong option for the promise that it breaks, and compare the sentence that it hears."""

    def ask(kind, wrong, promise, sentence):
        option = register(kind, wrong)
        checks = [check for check in checks_of(kind, option) if check.promise.__name__.startswith(promise)]
        with pytest.raises(AssertionError) as heard:
            [check(option) for check in checks]
        assert re.match(f"{option.name} fails {promise}.*: .*{sentence}", str(heard.value), re.S)

    return ask
