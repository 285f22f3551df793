import numpy as np
import pytest
import torch
import yaml

from fedprune.core.errors import ConfigError
from fedprune.core.registry import from_dict
from fedprune.devices.latency import LatencyModel
from fedprune.devices.profile import FOLDER, DeviceProfile, Runtime, load_profile, profile_names, save_profile
from fedprune.devices.profiled_budgets import Profiled, macs_within
from fedprune.devices.profiling import profile_runtime, random_model, random_shapes
from fedprune.devices.search import keep_within
from fedprune.devices.timing import interleaved, repeatability
from fedprune.vit.counts import count_params
from fedprune.vit.inspect import read_shape
from fedprune.vit.shape import BlockShape, Shape
from fedprune.vit.surgery import shape_of
from fedprune.vit.units import row_length, unpack

TINY = Shape(224, 16, 192, 1000, (BlockShape(3, 64, 64, 768),) * 12, 0.125)
SMALL = Shape(8, 4, 12, 7, (BlockShape(2, 6, 6, 24),) * 3, 6**-0.5)


@pytest.mark.parametrize("name", profile_names())
def test_shipped_profiles_load_name_their_sources_and_order_models_by_size(name):
    profile = load_profile(name)
    assert profile.sources
    latency = profile.latency("onnxruntime")
    half = Shape(224, 16, 96, 1000, TINY.blocks[:6], 0.125)
    assert 0 < latency.seconds(half) < latency.seconds(TINY) < 1
    assert yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["title"] == profile.title


def test_the_shipped_profiles_cover_the_classes_of_devices():
    assert {"phone", "raspberry-pi-4", "raspberry-pi-5", "small-gpu"} <= set(profile_names())


def test_profiles_come_back_from_yaml(tmp_path):
    runtime = Runtime(1, LatencyModel(1e-3, 1e-4, 1e-11, 0.0, 1e-9), True, 0.02, 0.01)
    profile = DeviceProfile("mine", 2**30, 1e6, 2e6, 0.5, ("measured",), torch=runtime)
    save_profile(tmp_path / "mine.yaml", profile)
    assert load_profile(str(tmp_path / "mine.yaml")) == profile
    with pytest.raises(ConfigError, match="no latency of 'onnxruntime'"):
        profile.latency("onnxruntime")


@pytest.mark.parametrize(("text", "word"), [("title: [", "YAML"), ("3", "profile"), ("titel: x", "no field")])
def test_files_that_are_no_profile_are_refused(tmp_path, text, word):
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(ConfigError, match=word):
        load_profile(str(tmp_path / "wrong.yaml"))
    with pytest.raises(ConfigError, match="raspberry-pi-4"):
        load_profile("raspberry")


def test_budgets_by_profile_keep_the_time():
    option = Profiled(profiles=("raspberry-pi-4", "phone"), milliseconds=60.0, memory_share=None)
    budgets = option.assign(TINY, 6, seed=0)
    slow, fast = (load_profile(name).latency("onnxruntime") for name in option.profiles)
    allowed = {macs_within(0.06, TINY, latency) for latency in (slow, fast)}
    assert {budget.macs for budget in budgets} == allowed
    scores = unpack(np.random.default_rng(0).random(row_length(TINY)), TINY)
    tight = min(budgets, key=lambda budget: budget.macs)
    edge = shape_of(TINY, keep_within(TINY, scores, tight))
    assert 0.02 < slow.seconds(edge) <= 0.06
    assert count_params(edge) < count_params(TINY)
    with pytest.raises(ConfigError, match="milliseconds"):
        from_dict("budgets", {"name": "profiles", "milliseconds": 0})


def test_interleaved_timing_takes_tasks_in_turn():
    calls = []
    ticks = iter(range(1000))
    table = interleaved(
        [lambda: calls.append("a"), lambda: calls.append("b")], rounds=(4, 4), clock=lambda: next(ticks)
    )
    assert calls == ["a", "b"] * 5  # one round warms up
    assert table.tolist() == [[1.0, 1.0]] * 4
    assert repeatability(table) == 0


def test_timing_takes_one_thread_and_gives_the_others_back():
    before, inside = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        interleaved([lambda: inside.append(torch.get_num_threads())], rounds=(1, 1))
        assert (inside, torch.get_num_threads()) == ([1, 1], 2)
    finally:
        torch.set_num_threads(before)


def test_random_shapes_are_legal_and_start_with_the_base():
    shapes = random_shapes(SMALL, 30, seed=1)
    assert shapes[0] == SMALL
    for index, shape in enumerate(shapes):
        assert read_shape(random_model(shape, index)).blocks == shape.blocks
    assert any(block.heads == 0 for shape in shapes for block in shape.blocks)
    assert any(block.qk != block.v for shape in shapes for block in shape.blocks)


def test_profiling_fits_what_it_measured():
    shapes = random_shapes(Shape(32, 4, 64, 10, (BlockShape(4, 16, 16, 256),) * 6, 0.25), 8, seed=0)
    result = profile_runtime(shapes, "torch", seconds=1.0)
    assert len(result.errors) == 8
    assert result.latency.margin >= 0
    assert (result.seconds > 0).all()
    predicted = np.array([float(result.latency.seconds(shape)) for shape in shapes])
    assert np.median(np.abs(predicted / result.seconds - 1)) < 0.5  # loose: the machine may be busy
