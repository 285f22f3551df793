"""The command that a page shows gives the same run."""

import shlex

import pytest

from fedprune.experiment.command import command_of, overrides_of
from fedprune.experiment.compose import compose


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["method=random", "seed=3", "budgets.removed=[0.5,0.9]"],
        ["scale=digits", "mechanism=votes", "mechanism.epsilon=2"],
        ["data=image_folder", "data.root=a folder", "partition=iid", "base=timm", "base.head=probe"],
        ["preset=nuwa_v1", "personal=finetune"],
    ],
)
def test_the_command_of_a_run_gives_its_id(words):
    config = compose(words)
    program, name, *overrides = shlex.split(command_of(config))
    assert (program, name) == ("fedprune", "run")
    assert compose(overrides).identity() == config.identity()


def test_only_what_differs_is_said_and_no_path():
    assert overrides_of(compose(["method=random", "seed=1", "runs=elsewhere", "engine.workers=2"])) == (
        "method=random",
        "seed=1",
    )
