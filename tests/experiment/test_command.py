"""The command that a page shows gives the same run."""

import shlex

import pytest

from fedprune.core.errors import ConfigError
from fedprune.experiment.compose import compose
from fedprune.experiment.differences import command_of, differences


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
    config = compose(["method=random", "seed=1", "runs=elsewhere", "engine.workers=2"])
    assert tuple(differences(config.to_dict())) == (
        "method=random",
        "seed=1",
    )


def test_options_that_do_not_go_together_are_named():
    with pytest.raises(ConfigError, match="scale=paper data=image_folder do not go together: Key 'hub' not in"):
        compose(["scale=paper", "data=image_folder", "data.root=x"])
