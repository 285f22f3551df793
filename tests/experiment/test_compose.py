import pytest
from omegaconf import OmegaConf

from fedprune.core.errors import ConfigError
from fedprune.core.registry import to_dict
from fedprune.experiment.compose import compose, config_folder, expand
from fedprune.experiment.config import OUTSIDE_IDENTITY, RunConfig


def test_a_configuration_survives_the_way_through_its_record():
    config = compose(["method=random", "seed=3", "budgets.removed=[0.5,0.9]", "features.dimensions=16"])
    assert config.budgets.removed == (0.5, 0.9)
    assert config.features.dimensions == 16
    assert RunConfig.from_dict(config.to_dict()) == config


def test_a_recipe_that_trains_nothing_is_no_part_of_the_identity():
    plain = compose([]).identity()
    assert compose(["tokens.training.steps=7"]).identity() == plain
    control = compose(["tokens.train=all"]).identity()
    assert len({plain, control, compose(["tokens.train=all", "tokens.training.steps=7"]).identity()}) == 3


def test_the_identity_is_that_of_the_resolved_configuration():
    assert compose(["seed=0", "method=fedprune"]).identity() == compose([]).identity()
    assert compose(["seed=1"]).identity() != compose([]).identity()


@pytest.mark.parametrize(
    "override", ["runs=elsewhere", "cache=elsewhere", "threads=2", "quiet=true", "save_models=true"]
)
def test_what_changes_no_result_changes_no_identity(override):
    assert override.split("=")[0] in OUTSIDE_IDENTITY
    assert compose([override]).identity() == compose([]).identity()


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("sed=1", r"has no key 'sed'; did you mean 'seed'\?"),
        (
            "method=fedprun",
            r"no method named 'fedprun'; did you mean 'fedprune'\? There are: .*fedprune.*global.*random",
        ),
        ("method.nothing=1", "method has no key 'nothing'. It has: .*prior"),
        ("method.nothing.deeper=1", "method has no key 'nothing'|no 'method.nothing'"),
        ("method.prior=much", "could not be converted to Float"),
        ("method.prior=-1", "must not be negative"),
        ("seed=zero", "could not be converted to Integer"),
        ("proxy_size=0", "proxy_size is 0; it must be at least 1"),
        ("precision=fp8", "precision is 'fp8'; use one of"),
        ("compute=tpu", "compute is 'tpu'; use cpu or cuda"),
        ("scale=huge", "Could not find 'scale/huge'"),
        ("=1", "sets nothing"),
        ("seed", "Write settings as key=value"),
        ("seed=[1", "Write settings as key=value"),
    ],
)
def test_a_wrong_setting_is_answered_with_one_sentence(override, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        compose([override])
    assert "\n" not in str(caught.value)


def test_a_sweep_expands_to_all_combinations_without_duplicates():
    runs = expand(["method=fedprune,random", "seed=0,1,0", "proxy_size=64"])
    assert runs == [
        ["method=fedprune", "seed=0", "proxy_size=64"],
        ["method=fedprune", "seed=1", "proxy_size=64"],
        ["method=random", "seed=0", "proxy_size=64"],
        ["method=random", "seed=1", "proxy_size=64"],
    ]
    assert len(expand(["seed=range(0,5)"])) == 5


@pytest.mark.parametrize("scale", sorted(path.stem for path in (config_folder() / "scale").glob("*.yaml")))
def test_every_scale_composes(scale):
    config = compose([f"scale={scale}"])
    assert config.identity()


def test_a_setting_on_the_command_line_wins_over_the_scale():
    assert to_dict(compose(["scale=cifar", "data=glyphs"]).data)["name"] == "glyphs"


def test_another_partition_may_be_chosen_at_every_scale():
    assert to_dict(compose(["scale=cifar", "partition=dirichlet"]).partition)["name"] == "dirichlet"
    ten = compose(["scale=cifar"]).partition
    assert (to_dict(ten)["name"], ten.tasks_per_device, ten.classes_per_device) == ("subtasks", 2, 10)


def test_configuration_files_name_options_and_never_code():
    for path in config_folder().rglob("*.yaml"):
        assert "_target_" not in path.read_text()
        OmegaConf.load(path)
