"""The guess of a run's time, worked out by hand."""

import dataclasses

import pytest

from fedprune.experiment.compose import compose
from fedprune.experiment.expected import MACS_PER_SECOND, OVERHEAD, expected_seconds
from fedprune.vit.base_timm import TimmBase


def test_a_guess_is_passes_times_macs_over_speed():
    config = compose(["partition.devices=2", "oracle=false"])  # the micro DeiT: 5,442,304 MACs
    images = 2 * (400 + 2 * 300 + 6 * 128)
    assert expected_seconds([config]) == pytest.approx(OVERHEAD + images * 5_442_304 / MACS_PER_SECOND["fp32"])
    assert expected_seconds([config, config]) == pytest.approx(2 * (expected_seconds([config]) or 0))
    half, none = compose(["partition.devices=2", "oracle=false", "precision=bf16", "recovery=none"]), 2 * 3 * 128
    assert expected_seconds([half]) == pytest.approx(OVERHEAD + (images - none) * 5_442_304 / MACS_PER_SECOND["bf16"])


def test_the_papers_scale_is_guessed_without_weights_and_an_unknown_base_is_not():
    paper = compose(["scale=paper"])
    assert (expected_seconds([paper]) or 0) > OVERHEAD
    unknown = dataclasses.replace(paper, base=TimmBase(model="resnet18"))
    assert expected_seconds([unknown]) is None
