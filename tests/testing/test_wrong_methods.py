"""What a wrong option hears: the promise that it breaks and a sentence about how."""

from dataclasses import dataclass, field, replace

import pytest
import torch

from fedprune.pruning.random import Random
from fedprune.testing import check_method, check_option, checks_of
from fedprune.testing.contract import expect_raises
from fedprune.vit.surgery import cut


@dataclass(frozen=True)
class Greedy(Random):
    """Keeps twice what it may."""

    def derive(self, task):
        return super().derive(replace(task, budget=replace(task.budget, params=2 * (task.budget.params or 10**9))))


@dataclass(frozen=True)
class Modest(Random):
    """Keeps half of what it may."""

    def derive(self, task):
        return super().derive(replace(task, budget=replace(task.budget, params=(task.budget.params or 9000) // 2)))


@dataclass(frozen=True)
class Vandal(Random):
    """Changes the base that all devices share."""

    def derive(self, task):
        edge = super().derive(task)
        task.base.model.head.bias.data += 1
        return edge


@dataclass(frozen=True)
class Fickle(Random):
    """Draws from torch's global generator."""

    def score(self, task):
        return torch.rand(len(super().score(task))).numpy()


@dataclass(frozen=True)
class Peeking(Random):
    """Looks at images that are not in the pool."""

    def score(self, task):
        task.images.read(range(len(task.images)))
        return super().score(task)


@dataclass(frozen=True)
class Whispering(Random):
    """Reads labels and says that it reads none."""

    def score(self, task):
        scores = super().score(task)
        return scores[::-1].copy() if task.images.labels[0] % 2 else scores


@dataclass(frozen=True)
class Deaf(Random):
    """Keeps all classes whatever the device says."""

    def derive(self, task):
        return super().derive(replace(task, classes=None))


@dataclass(frozen=True)
class Stubborn(Random):
    """Cuts the base in its own coordinates whatever `stream` says."""

    def derive(self, task):
        keep = self.search(task, self.score(task))
        return cut(task.base, keep)


@dataclass(frozen=True)
class Silent(Random):
    """Answers an impossible budget with an error of its own."""

    def derive(self, task):
        if task.budget.params == 300:
            raise RuntimeError("no way")
        return super().derive(task)


@dataclass(frozen=True)
class Boastful(Random):
    """Tells a larger shape than it has."""

    def derive(self, task):
        edge = super().derive(task)
        return replace(edge, model=torch.nn.Sequential(edge.model, torch.nn.Linear(6, 6)))


@pytest.mark.parametrize(
    ("wrong", "promise", "sentence"),
    [
        (Greedy, "the_budget_holds_and_the_base_stays", r"has \d+ params where the budget allows \d+\."),
        (Modest, "the_budget_is_used", r"has \d+ parameters of \d+ that it may have"),
        (
            Vandal,
            "the_budget_holds_and_the_base_stays",
            r"the shared base's head.bias was changed. Cut or train a copy.",
        ),
        (Fickle, "the_same_task_gives_the_same_bits", "two edge models of one task differ in .* Draw from a stream"),
        (Peeking, "only_the_pool_is_read", r"it read image \[10\] of the server's, which is not in the pool."),
        (Whispering, "labels_that_it_does_not_read_change_nothing", "`reads_labels` is false, and with other labels"),
        (
            Deaf,
            "classes_that_a_device_names_are_the_rows_that_stay",
            r"tells .* \(1, 4\), and .* has \(0, 1, 2, 3, 4, 5\)",
        ),
        (Stubborn, "it_works_on_a_rotated_stream", "stream=rotated is set, .* along the base's own axes"),
        (Silent, "what_cannot_be_met_is_refused_in_a_sentence", "it raised RuntimeError: no way"),
        (Boastful, "the_budget_holds_and_the_base_stays", r"the module holds \d+ parameters, .* told counts \d+"),
    ],
)
def test_a_wrong_method_hears_what_is_wrong(hears, wrong, promise, sentence):
    hears("method", wrong, promise, sentence)


def test_one_call_asks_everything(register):
    with pytest.raises(AssertionError, match="greedy fails the_budget_holds"):
        check_method(register("method", Greedy))


class Undecorated(Random):
    """Is no dataclass, so that its fields are none."""


@dataclass(frozen=True)
class Nameless(Random):
    """Stands under no name."""


@dataclass(frozen=True)
class Wordless(Random):
    pass


@dataclass(frozen=True)
class Unwritable(Random):
    """Has a field that no record can hold."""

    levels: set[int] = field(default_factory=lambda: {1, 2})


def test_an_option_that_is_none_hears_why(register):
    with pytest.raises(AssertionError, match="that is a class; give an option made of it"):
        check_method(Random)
    with pytest.raises(AssertionError, match="NoneType is no Method; derive it from fedprune.pruning.method"):
        check_method(None)
    with pytest.raises(AssertionError, match=r'Nameless is not registered as a method; write @register\("method"'):
        check_method(Nameless())
    for wrong, sentence in (
        (Undecorated, r"Undecorated is no dataclass of its own; write @dataclass\(frozen=True\) above it"),
        (Wordless, "Wordless has no docstring"),
        (Unwritable, "do not survive a record: Object of type set is not JSON serializable"),
    ):
        with pytest.raises(AssertionError, match=sentence):
            check_method(register("method", wrong))
    with pytest.raises(AssertionError, match=r"There is no contract for the kind 'methods'. There are: .*method"):
        check_option("methods", Random())


def test_refusals_in_other_words_are_noticed():
    with (
        pytest.raises(AssertionError, match="five is not refused; raise ValueError"),
        expect_raises(ValueError, "five"),
    ):
        pass
    with (
        pytest.raises(AssertionError, match="five is refused without the words 'small'"),
        expect_raises(ValueError, "five", "small"),
    ):
        raise ValueError("large")


def test_every_check_of_an_option_has_a_name_of_its_own():
    names = [str(check) for check in checks_of("method", Random())]
    assert len(set(names)) == len(names)
    assert "the_budget_holds_and_the_base_stays-removed=0.2-limit=params" in names
