"""The wall: from a server nothing private can be reached, and without private data it derives the same models."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fedprune.core.errors import ConfigError, DataError
from fedprune.core.files import write_json
from fedprune.data.images import ArrayImages, Dataset, DataSource, ImageSet, Partition, Partitioner, Shard
from fedprune.data.parquet import Parquet
from fedprune.data.public import PublicImages, cut_public
from fedprune.data.public_files import read_public, write_public
from fedprune.experiment.compose import compose
from fedprune.experiment.run import execute, public_images
from fedprune.protocol.device import make_report
from fedprune.protocol.observer import Observer
from fedprune.protocol.private import LocalData, PrivateShard
from fedprune.protocol.setup import Setup
from fedprune.protocol.simulation import Simulation, open_simulation
from fedprune.protocol.storage import StoredModel

PRIVATE = (Dataset, Partition, Shard, DataSource, Partitioner, Setup, LocalData, PrivateShard, Simulation)


def reachable(root):
    """Return every object that attributes, containers and views lead to; modules and classes lead nowhere."""
    seen, waiting = {}, [root]
    while waiting:
        found = waiting.pop()
        if id(found) in seen or isinstance(found, type | type(sys) | str | bytes | int | float):
            continue
        seen[id(found)] = found
        if isinstance(found, dict):
            waiting += [*found, *found.values()]
        elif isinstance(found, list | tuple | set | frozenset):
            waiting += list(found)
        elif isinstance(found, np.ndarray):
            waiting.append(found.base)
        else:
            waiting += list(getattr(found, "__dict__", {}).values())
            waiting += [getattr(found, name, None) for name in ("__self__", "__wrapped__", "func", "args", "keywords")]
    return list(seen.values())


def pictures(images):
    return {image.tobytes() for image in images.read(np.arange(len(images)))}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    return [
        "data.train_per_class=12", "data.test_per_class=4", "partition.devices=3", "features.dimensions=8",
        "features.anchors=5", "mixture.components=2", "proxy_size=32", "oracle=false", "quiet=true",
        f"runs={folder / 'runs'}", f"cache={folder / 'cache'}",
    ]  # fmt: skip


def served(simulation, config):
    """Let all devices report to a server of the simulation, and derive a model, so that everything is loaded."""
    server = simulation.server(config.server_options())
    for device in simulation.devices:
        simulation.report_to(server, device)
    server.derive(0, server.choose_proxy(0).indices)
    return server


def test_nothing_private_can_be_reached_from_a_server(small):
    config = compose(small)
    simulation = open_simulation(config.setup())
    objects = reachable(served(simulation, config))
    public = pictures(simulation.public.images) | pictures(simulation.public.public.validation)
    assert not [type(found).__name__ for found in objects if isinstance(found, PRIVATE)]
    image_sets = [found for found in objects if isinstance(found, ImageSet)]
    assert len(image_sets) == 2
    assert all(pictures(images) <= public for images in image_sets)
    own = simulation.shard(0)
    assert not pictures(own.train) & public
    assert not pictures(own.test) & public


def test_the_search_would_find_what_a_simulation_reaches(small):
    config = compose([*small, "selector=oracle"])
    simulation = open_simulation(config.setup())
    objects = reachable(served(simulation, config))
    own = pictures(simulation.shard(1).train)
    assert {Simulation, LocalData, Dataset} <= {type(found) for found in objects}
    assert any(own <= pictures(found) for found in objects if isinstance(found, ImageSet))


SERVER = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from fedprune.core.errors import DataError
from fedprune.experiment.config import RunConfig
from fedprune.experiment.run import public_images
from fedprune.protocol.deployment import Deployment
from fedprune.protocol.observer import Observer
from fedprune.protocol.storage import StoredModel

folder = Path(sys.argv[1])
config = RunConfig.from_dict(json.loads((folder / "config.json").read_text()))
try:
    config.data.load()
except DataError:
    print("no private data")
server = Deployment(config.setup(), public_images(config)).round(config.server_options(), Observer()).server
for path in sorted((folder / "reports").iterdir()):
    server.receive(int(path.name), path.read_bytes())
for device in server.reports:
    edge = server.derive(device, server.choose_proxy(device).indices)
    StoredModel.of(edge).write(folder / f"{device}.safetensors")
"""


def as_files(folder, dataset):
    """Write a data set as the parquet files of data=parquet, by the writer of public files."""
    write_public(folder, PublicImages(dataset.name, dataset.train, dataset.test, dataset.classes, ""))
    (folder / "pool.parquet").rename(folder / "train.parquet")
    (folder / "validation.parquet").rename(folder / "test.parquet")


def test_without_private_data_a_server_derives_the_same_models(tmp_path):
    """Base, space, proxy sets, evidence, cut and recovery rest on the pool alone, bit for bit."""
    config = compose([
        "scale=digits", "base.recipe.epochs=3", "oracle=false", "partition.devices=3", "features.dimensions=8",
        f"cache={tmp_path / 'cache'}",
    ])  # fmt: skip
    as_files(tmp_path / "data", config.data.load())
    config = dataclasses.replace(config, data=Parquet(root=str(tmp_path / "data")))
    simulation = open_simulation(config.setup())
    server = simulation.server(config.server_options())
    (tmp_path / "reports").mkdir()
    expected = {}
    for device in simulation.devices:
        upload = make_report(simulation.shard(device), simulation.public.space)
        (tmp_path / "reports" / str(device)).write_bytes(upload.report)
        server.receive(device, upload.report)
    for device in simulation.devices:
        expected[device] = StoredModel.of(server.derive(device, server.choose_proxy(device).indices))
    write_public(tmp_path / "public", simulation.local.public)
    shutil.rmtree(tmp_path / "data")
    elsewhere = dataclasses.replace(config, public=str(tmp_path / "public"), cache=str(tmp_path / "other cache"))
    write_json(tmp_path / "config.json", elsewhere.to_dict())
    done = subprocess.run([sys.executable, "-c", SERVER, tmp_path], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[0] == "no private data"
    for device, stored in expected.items():
        other = StoredModel.read(tmp_path / f"{device}.safetensors")
        assert other.shape == stored.shape
        assert other.tensors.keys() == stored.tensors.keys()
        for name, tensor in stored.tensors.items():
            assert torch.equal(other.tensors[name], tensor), f"{name} of device {device}"
    assert len({model.shape.to_json() for model in expected.values()}) > 1, "all devices got the same model"


def test_public_images_survive_their_files(small, tmp_path):
    public = public_images(compose(small))
    write_public(tmp_path / "pool", public)
    again = read_public(tmp_path / "pool")
    assert again.classes == public.classes
    for ours, theirs in ((public.pool, again.pool), (public.validation, again.validation)):
        np.testing.assert_array_equal(theirs.labels, ours.labels)
        np.testing.assert_array_equal(theirs.read(np.arange(len(ours))), ours.read(np.arange(len(ours))))
    dataset = Dataset("five", ArrayImages(np.zeros((5, 4, 4, 3), np.uint8), np.arange(5)), public.pool, ("a",) * 5, "")
    write_public(tmp_path / "pool", cut_public(dataset, Partition(np.arange(3), np.arange(3, 5), (), "")))
    assert read_public(tmp_path / "pool").fingerprint != again.fingerprint
    with pytest.raises(DataError, match="Set public to the folder that holds"):
        read_public(Path(tmp_path))


def test_a_run_whose_server_has_images_of_its_own(small, tmp_path):
    """The same models; a row says what its device has answered, and lacks what only a simulation knows."""
    simulated = compose(small)
    write_public(tmp_path / "pool", public_images(simulated))
    deployed = dataclasses.replace(
        simulated, public=str(tmp_path / "pool"), runs=str(tmp_path), cache=str(tmp_path / "cache")
    )
    assert deployed.identity() != simulated.identity()
    truth, rows = (execute(config, Observer()).devices for config in (simulated, deployed))
    assert (rows["task"] == "").all()
    assert rows[["classes", "shared_test_images"]].isna().all(axis=None)
    known = ("task", "classes", "shared_test_images")  # to a simulation only
    same = [name for name in truth if not name.endswith("_seconds") and name not in known]
    for name in same:
        assert rows[name].tolist() == pytest.approx(truth[name].tolist(), nan_ok=True), name


@pytest.mark.parametrize("impossible", ["oracle=true", "selector=oracle"])
def test_a_server_with_images_of_its_own_has_no_upper_marks(small, tmp_path, impossible):
    write_public(tmp_path / "pool", public_images(compose(small)))
    with pytest.raises(ConfigError, match="which this server lacks"):
        execute(compose([*small, f"public={tmp_path / 'pool'}", f"runs={tmp_path}", impossible]), Observer())
