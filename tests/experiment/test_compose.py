import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from fedprune.core import registry
from fedprune.core.errors import ConfigError
from fedprune.core.registry import registered, to_dict
from fedprune.experiment.choices import config_folder
from fedprune.experiment.compose import compose, expand
from fedprune.experiment.config import OUTSIDE_IDENTITY, RunConfig
from tests.situations import saw


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
        ("devices=3", r"has no key 'devices'; did you mean 'partition.devices'\?"),
        ("partion.devices=3", r"There is no 'partion' to set 'devices' of; did you mean 'partition'\?"),
        ("method.prior=much", "method.prior cannot be 'much'; it takes numbers."),
        ("budgets.removed=[much]", "budgets.removed cannot be 'much'; it takes numbers."),
        ("budgets.removed=[0.5,", r"cannot be read. Write lists without spaces: budgets.removed=\[1,2\]."),
        ("oracle=maybe", "oracle cannot be 'maybe'; it takes true or false."),
        ("method.floors=3", "method.floors has settings of its own: embed, heads.* Write method.floors.KEY=VALUE."),
        ("splitting=profile", "splitting has settings of its own: .* Write splitting.KEY=VALUE."),
        ("seed=null", "seed needs a value."),
        ("hydra.job.num=3", "is Hydra's own and changes no run. Leave it out, or add -m."),
        ("method.prior=-1", "must not be negative"),
        ("seed=zero", "seed cannot be 'zero'; it takes whole numbers."),
        ("proxy_size=0", "proxy_size is 0; it must be at least 1"),
        ("precision=fp8", "precision is 'fp8'; use one of"),
        ("compute=tpu", "compute is 'tpu'; use cpu or cuda"),
        ("scale=cifr", r"There is no scale named 'cifr'; did you mean 'cifar'\? There are: cifar, digits"),
        ("=1", "sets nothing"),
        ("seed", "'seed' is no setting. Write settings as key=value"),
        ("seed=[1", "cannot be read. Write lists without spaces"),
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


HEAVY = ("torch", "torchvision", "timm", "flwr", "numpy", "scipy", "sklearn", "pandas", "datasets", "matplotlib")
TYPOS = {
    "metod=x": "the configuration has no key 'metod'; did you mean 'method'?",
    "method=tpa": "There is no method named 'tpa'; did you mean 'tap'?",
    "scale=cifr": "There is no scale named 'cifr'; did you mean 'cifar'?",
    "+foo=1": "'+foo=1' adds or takes away a setting, but settings are fixed. Write key=value.",
    "budgets.removed=0.5": "budgets.removed is a list of values. Write budgets.removed=[0.5].",
    "budget.removed=[0.5]": "There is no 'budget' to set 'removed' of; did you mean 'budgets'?",
    "mixture.componets=3": "mixture has no key 'componets'; did you mean 'components'?",
    "seed=abc": "seed cannot be 'abc'; it takes whole numbers.",
}


def test_a_typo_is_told_before_anything_heavy_is_imported():
    """Python starts torch, timm and the rest in ten seconds, and what is wrong can be said without them."""
    code = f"""
import sys
from fedprune.cli.main import main
for words in {list(TYPOS)!r}:
    assert main(["run", words]) == 2
    assert main(["data", words]) == 2
print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    lines = done.stderr.splitlines()
    assert [line for line, words in zip(lines[::2], TYPOS.values(), strict=True) if words not in line] == []
    assert lines[::2] == lines[1::2]
    saw("a misspelt setting, value or option", "told with the nearest right spelling before torch is imported")


def test_the_option_of_a_plug_in_is_composed_too(tmp_path, monkeypatch):
    compose([])  # all options are there, and what comes now is forgotten
    monkeypatch.setattr(registry, "_registered", {kind: dict(known) for kind, known in registry._registered.items()})
    path = tmp_path / "odd_names.py"
    path.write_text(
        "import typing\nfrom dataclasses import dataclass\nfrom fedprune.core.registry import register\n"
        "from fedprune.proxy.random import Random\n\n\n"
        "@register('selector', 'my-own')\n@dataclass(frozen=True)\nclass Own(Random):\n    share: float = 0.25\n\n\n"
        "@register('selector', '3rd')\n@dataclass(frozen=True)\nclass Third(Random):\n"
        "    places: typing.Tuple[int, ...] = (1, 2)\n"
    )
    monkeypatch.setenv("FEDPRUNE_PLUGINS", str(path))
    config = compose(["selector=my-own", "selector.share=0.5"])
    assert to_dict(config.selector) == {"name": "my-own", "share": 0.5}
    assert to_dict(compose(["selector=3rd", "selector.places=[4]"]).selector) == {"name": "3rd", "places": (4,)}
    path.write_text(path.read_text() + "\nregister(*('selector', 'made'))(type('Made', (Third,), {}))\n")
    sys.modules.pop("fedprune_plugin_odd_names")
    assert to_dict(compose(["selector=made"]).selector)["name"] == "made"
    with pytest.raises(ConfigError, match=r"selector has no key 'shar'; did you mean 'share'\?"):
        compose(["selector=my-own", "selector.shar=0.5"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import os\nimport no_such_module\n", "line 2: ModuleNotFoundError: No module named 'no_such_module'."),
        (
            "import os\nfrom fedprune.core.registry import registr\n",
            "line 2: ImportError: cannot import name 'registr'",
        ),
        ("x = (\n", "line 1: SyntaxError: '\\(' was never closed."),
        ("a = 1\n\nb = c\n", "line 3: NameError: name 'c' is not defined."),
    ],
)
def test_a_plug_in_that_cannot_be_imported_is_a_sentence(text, sentence, tmp_path, monkeypatch):
    path = tmp_path / "broken.py"
    path.write_text(text)
    monkeypatch.setenv("FEDPRUNE_PLUGINS", str(path))
    for _ in range(2):
        with pytest.raises(ConfigError, match=f"The plug-in {path}, {sentence}") as caught:
            registered("selector")
        assert "\n" not in str(caught.value)
    if "no_such_module" in text:
        saw("a plug-in that imports what is not there", caught.value, str(tmp_path) + "/")


@pytest.mark.parametrize(
    ("preset", "names"),
    [
        ("tap", ("gmm_bic", "top_density", "tap", "finetune", "none")),
        ("nuwa_v1", ("gmm", "label_histogram", "nuwa_v1", "finetune", "none")),
        ("nuwa_v2", ("gmm", "label_histogram", "nuwa_v2", "none", "none")),
        ("spvit", ("gmm", "random", "magnitude", "none", "spvit")),
        ("corp", ("gmm", "random", "corp", "fold", "none")),
        ("fedprune", ("gmm", "herding", "fedprune", "least_squares", "none")),
        ("oneshot", ("gmm", "herding", "fedprune", "least_squares", "none")),
    ],
)
def test_a_preset_is_a_whole_pipeline_at_every_scale(preset, names):
    for scale in ("glyphs", "tiny"):
        config = compose([f"preset={preset}", f"scale={scale}"])
        options = (config.mixture, config.selector, config.method, config.recovery, config.tokens)
        assert tuple(to_dict(option)["name"] for option in options) == names


def test_presets_are_all_tested_and_named():
    assert len(list((config_folder() / "preset").glob("*.yaml"))) == 7
    with pytest.raises(ConfigError, match="There is no preset named 'tapp'; did you mean 'tap'"):
        compose(["preset=tapp"])


def test_oneshot_heals_what_it_refits_without_healing():
    config = compose(["preset=oneshot", "recovery=oneshot_heal"])
    assert compose(["preset=oneshot"]).recovery == config.recovery.refit
    assert config.recovery.refit.head == "leave_one_out"
    assert config.recovery.validates


def test_tap_is_as_released():
    config = compose(["preset=tap", "scale=tiny"])
    assert (config.mixture.covariance, config.mixture.candidates) == ("full", tuple(range(2, 11)))
    assert (config.proxy_size, config.recovery_size) == (640, 6400)
    recovery = config.recovery
    assert (recovery.epochs, recovery.learning_rate, recovery.batch_size, recovery.weight_decay) == (50, 1e-5, 64, 0)
    assert recovery.best_epoch


def test_a_setting_on_the_command_line_wins_over_the_preset():
    config = compose(["preset=tap", "method=fedprune", "recovery.epochs=2", "proxy_size=32"])
    assert (to_dict(config.method)["name"], config.recovery.epochs, config.proxy_size) == ("fedprune", 2, 32)
    other = compose(["preset=tap", "recovery=least_squares", "mixture=gmm", "recovery_size=null"])
    assert to_dict(other.recovery) == to_dict(compose([]).recovery), "the preset's options go as wholes"
    assert compose(["preset=fedprune"]).identity() == compose([]).identity()
