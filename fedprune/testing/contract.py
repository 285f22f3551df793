"""What a contract is made of: promises that every option of a kind keeps, each asked under its own name.

A promise is a function of an option, and of settings to ask it under, that raises AssertionError with a sentence
where the option breaks it. Nothing here needs pytest.
"""

import inspect
import itertools
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import SkipTest

import numpy as np
import torch

from fedprune.core.errors import ConfigError, MissingExtra
from fedprune.core.registry import from_dict, registered, to_dict

GLOBAL_RANDOMNESS = "Draw from a stream that the task's seed and a purpose name (fedprune.core.random.stream)."


@dataclass(frozen=True)
class Check:
    """One promise, ready to be asked of an option: `check(option)`.

    Attributes:
        promise: Its name says what is promised.
        settings: What it is asked under.
    """

    promise: Callable[..., None]
    settings: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        name = self.promise.__name__
        return "-".join([name, *(f"{key}={getattr(value, '__name__', value)}" for key, value in self.settings.items())])

    def __call__(self, option: Any) -> None:
        """Ask `option` to keep the promise.

        Raises:
            AssertionError: it does not; the sentence says what it does instead.
            SkipTest: it needs a package that is not installed.
        """
        try:
            self.promise(option, **self.settings)
        except (MissingExtra, SkipTest) as missing:
            raise SkipTest(str(missing)) from missing
        except AssertionError as broken:
            broken.args = (f"{name_of(option)} fails {self}: {broken}",)
            raise
        except Exception as error:
            sentence = f"it raised {type(error).__name__}: {error}"
            raise AssertionError(f"{name_of(option)} fails {self}: {sentence}") from error


def asked(promise: Callable[..., None], **values: Iterable[object]) -> list[Check]:
    """Return the checks that ask `promise` under every combination of `values`."""
    return [Check(promise, dict(zip(values, row, strict=True))) for row in itertools.product(*values.values())]


def expect(kept: bool, sentence: str) -> None:
    """Raise AssertionError with `sentence` unless `kept`.

    Raises:
        AssertionError: `kept` is false.
    """
    if not kept:
        raise AssertionError(sentence)


@contextmanager
def expect_raises(error: type[Exception], what: str, holding: str = "") -> Iterator[None]:
    """Expect `error`, with `holding` in its message.

    Raises:
        AssertionError: `what` went through, or was refused in other words.
    """
    try:
        yield
    except error as refused:
        expect(holding in str(refused), f"{what} is refused without the words {holding!r}: {refused}")
    else:
        raise AssertionError(f"{what} is not refused; raise {error.__name__} with a sentence that says what to change.")


@contextmanager
def global_generators(seed: int) -> Iterator[None]:
    """Run with the generators that Python, NumPy and torch share among all code at `seed`; restore them behind."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


def under_two_generators(compute: Callable[[], Any]) -> tuple[Any, Any]:
    """Return what `compute` gives twice, the global generators elsewhere each time."""
    results = []
    for seed in (1, 2):
        with global_generators(seed):
            results.append(compute())
    return results[0], results[1]


def it_is_an_option_of_its_kind(option: Any, kind: str, base: type[Any]) -> None:
    """A frozen dataclass of the kind's class, registered, with a first sentence, that a record can hold."""
    expect(not isinstance(option, type), "that is a class; give an option made of it: a pair of brackets is missing.")
    cls = type(option)
    expect(isinstance(option, base), f"{cls.__name__} is no {base.__name__}; derive it from {base.__module__}.")
    own = "__dataclass_fields__" in vars(cls)
    expect(own, f"{cls.__name__} is no dataclass of its own; write @dataclass(frozen=True) above it.")
    register = f'write @register("{kind}", "its_name") above it'
    expect(registered(kind).get(name_of(option)) is cls, f"{cls.__name__} is not registered as a {kind}; {register}.")
    sentence = (inspect.getdoc(cls) or "").split("\n")[0]
    expect(bool(sentence) and not sentence.startswith(f"{cls.__name__}("), f"{cls.__name__} has no docstring.")
    try:
        again = from_dict(kind, json.loads(json.dumps(to_dict(option))))
    except (TypeError, ConfigError) as error:
        raise AssertionError(f"Its fields do not survive a record: {error}. Use plain values and tuples.") from error
    expect(again == option, f"From a record it comes back as {again}. Use plain values and tuples as fields.")


def difference(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> str:
    """Return the name of the first tensor in which two models differ; empty where they are equal to the bit."""
    if set(first) != set(second):
        return sorted(set(first) ^ set(second))[0]
    return next((name for name in first if not torch.equal(first[name], second[name])), "")


def name_of(option: Any) -> str:
    """Return what an option is called in sentences and in the ids of tests."""
    return str(getattr(option, "name", type(option).__name__))


Contract = Callable[[Any], list[Check]]
