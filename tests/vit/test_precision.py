"""`auto` is what the processor is fast in, chosen once and written down."""

import json

import pytest
import torch

from fedprune.core.errors import ModelError
from fedprune.experiment.compose import compose
from fedprune.experiment.precision import settle_precision
from fedprune.vit import precision
from fedprune.vit.precision import Choice, autocast, choose, takes_bf16


@pytest.fixture(autouse=True)
def forgotten():
    """What other tests have measured is not remembered, nor what these pretend."""
    for remembered in (takes_bf16, precision._gain):
        remembered.cache_clear()
    yield
    for remembered in (takes_bf16, precision._gain):
        remembered.cache_clear()


def pretend(monkeypatch, gains, **capabilities):
    """Pretend a processor, and how many times as fast bf16 is at each width."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "a processor", **capabilities})
    monkeypatch.setattr(precision, "_gain", gains.__getitem__)


def test_a_processor_without_bf16_is_not_measured(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
    monkeypatch.setattr(precision, "_gain", lambda width: pytest.fail("measured"))
    assert choose(768) == Choice("fp32", "this processor has no instructions for bf16")


@pytest.mark.parametrize("name", precision.MULTIPLIES_BF16)
def test_a_processor_with_bf16_takes_it_where_it_was_measured_to_be_worth_it(name, monkeypatch):
    for width, gain, wanted in ((64, 0.5, "fp32"), (64, 1.2, "fp32"), (192, 2.5, "bf16")):
        with monkeypatch.context() as patched:
            patched.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "a processor", name: True})
            patched.setattr(precision, "_gain", lambda width, gain=gain: gain)
            assert choose(width).precision == wanted
            assert f"{gain:.1f} times as fast at width {width}" in choose(width).reason


def test_what_was_measured_is_kept_for_every_process(monkeypatch, tmp_path):
    pretend(monkeypatch, {192: 3.0}, avx512_bf16=True)
    assert choose(192, folder=tmp_path).precision == "bf16"
    monkeypatch.setattr(precision, "_gain", lambda width: 0.1)  # another day, a busier machine
    assert choose(192, folder=tmp_path).precision == "bf16"
    assert choose(192).precision == "fp32"


def test_the_gain_is_a_ratio_of_times_of_this_machine():
    assert 0 < precision._gain(64) < 100


def test_a_gpu_is_asked_too(monkeypatch):
    for able, wanted in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda able=able: able)
        assert choose(64, "cuda").precision == wanted


def test_autocast_does_what_was_chosen(monkeypatch):
    pretend(monkeypatch, {64: 0.5, 192: 2.0}, avx512_bf16=True)
    for name, width, wanted in (
        ("auto", 64, False), ("auto", 192, True), ("bf16", 64, True), ("fp32", 192, False)
    ):  # fmt: skip
        with autocast(name, width):
            assert torch.is_autocast_enabled("cpu") is wanted
    with pytest.raises(ModelError, match="no precision 'fp8'"):
        autocast("fp8", 64)


def test_one_id_never_stands_for_two_precisions(monkeypatch, tmp_path):
    overrides = ["scale=cifar", f"cache={tmp_path}", "tokens=spvit"]
    pretend(monkeypatch, {192: 2.0}, avx512_bf16=True)
    fast = compose(overrides)
    pretend(monkeypatch, {}, avx512_bf16=False)
    plain = compose(overrides)
    assert (fast.precision, plain.precision) == ("bf16", "fp32")
    assert (fast.base.recipe.precision, plain.base.recipe.precision) == ("bf16", "fp32")
    assert fast.identity() != plain.identity()
    assert plain.identity() == compose([*overrides, "precision=fp32"]).identity()
    assert "auto" not in json.dumps([fast.to_dict(), plain.to_dict()])


def test_a_choice_of_the_users_own_stays(monkeypatch):
    pretend(monkeypatch, {}, avx512_bf16=False)
    config = compose(["scale=cifar", "precision=bf16", "base.recipe.precision=fp32"])
    assert (config.precision, config.base.recipe.precision) == ("bf16", "fp32")
    assert settle_precision(config) == config


def test_the_choice_is_told_once_and_with_its_reason(monkeypatch, capfd, caplog):
    pretend(monkeypatch, {}, avx512_bf16=False)
    from fedprune.experiment.precision import _tell

    _tell.cache_clear()
    for seed in range(3):
        compose(["scale=cifar", f"seed={seed}"])
    told = [entry.message for entry in caplog.records if "precision" in entry.message]
    assert told == ["precision: fp32 (this processor has no instructions for bf16; set precision to choose yourself)"]


def test_no_scale_names_bf16(tmp_path):
    for scale in ("glyphs", "digits", "cifar", "paper"):
        config = compose([f"scale={scale}", f"cache={tmp_path}", *(["compute=cpu"] if scale == "paper" else [])])
        assert config.precision in ("fp32", choose(192).precision)
