"""The world of the evidence study: devices with a few classes each, proxy sets, and the ways that are compared."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedprune.core.cache import cached_array
from fedprune.core.random import stream, stream_seed
from fedprune.core.registry import to_dict
from fedprune.data.cifar import Cifar100
from fedprune.data.glyphs import Glyphs
from fedprune.data.images import Dataset, DataSource, ImageSet, IntArray, Partition
from fedprune.data.public import cut_public
from fedprune.data.subtasks import Subtasks
from fedprune.devices.budget import Budget
from fedprune.evidence.evidence import Evidence
from fedprune.mixture.features import extract
from fedprune.mixture.gmm import GaussianMixtureFit
from fedprune.mixture.mixture import FeatureSpace, FloatArray
from fedprune.mixture.space import fit_space
from fedprune.proxy.quota_ratio import QuotaRatio
from fedprune.proxy.selector import SelectionTask
from fedprune.pruning.fedprune import Fedprune
from fedprune.pruning.global_ import Global
from fedprune.pruning.importance import Importance, Terms
from fedprune.pruning.method import Method, PruningTask
from fedprune.pruning.random import Random
from fedprune.pruning.sample import pool_sample
from fedprune.recovery.least_squares import LeastSquares
from fedprune.vit.base import Base, BaseSource, predict
from fedprune.vit.base_glyphs import GlyphBase
from fedprune.vit.base_trained import TrainedBase
from fedprune.vit.counts import count_params
from fedprune.vit.surgery import EdgeModel

POOL_IMAGES = 12500  # proxy sets are chosen among so many of the pool's, to save time


class Settings:
    """Named settings of `fedprune`; `default` is the one that the package ships."""

    _all: dict[str, Fedprune] = {  # noqa: RUF012
        "default": Fedprune(),
        "as_is": Fedprune(attention="as_is"),
        "importance_alone": Fedprune(Importance(cost_power=0.0)),
        "per_cost": Fedprune(Importance(cost_power=1.0)),
        "square_per_cost": Fedprune(Importance(terms=Terms(taylor=0.0, taylor_square=1.0), cost_power=1.0)),
        "not_centred": Fedprune(Importance(centred=False)),
        "entropy": Fedprune(Importance(loss="entropy")),
        "kl": Fedprune(Importance(loss="kl")),
        "own_classes": Fedprune(Importance(own_classes=True)),
        "activation": Fedprune(Importance(terms=Terms(taylor=0.0, activation=1.0))),
        "variance": Fedprune(Importance(terms=Terms(taylor=0.0, variance=1.0))),
        "l2_gate": Fedprune(Importance(normalise="l2", layer="gate")),
        "l2_skip": Fedprune(Importance(normalise="l2", layer="skip")),
        "prior": Fedprune(prior=256.0),
        "reestimate": Fedprune(reestimate=0.2),
    }

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return all names."""
        return tuple(cls._all)

    @classmethod
    def named(cls, name: str) -> Fedprune:
        """Return the method of that name."""
        return cls._all[name]

    @classmethod
    def described(cls, name: str) -> dict[str, Any]:
        """Return a setting as plain values."""
        return to_dict(cls._all[name])


@dataclass(frozen=True)
class StudyWorld:
    """One seed's devices over one base."""

    key: tuple[str, int, int]
    dataset: Dataset
    partition: Partition
    base: Base
    evidence: Evidence
    space: FeatureSpace
    points: FloatArray  # of the pool, in that space
    cache: Path
    judged: int  # images that a device's models are judged on, at most

    def measure(
        self, device: int, split: str, proxy_size: int, removed: float, setting: Fedprune
    ) -> list[dict[str, str | int | float]]:
        """Return one row a way: the correct answers on the device's images when only its classes are asked."""
        shard, seed = self.partition.shards[device], self.key[1]
        images, indices = self._judged(device, split)
        proxy = self._chosen(device, proxy_size)
        own = stream(seed, "oracle", device).permutation(shard.train)[:proxy_size]
        common = pool_sample(self.partition.pool, proxy_size)
        shared = Global(replace(setting.importance, own_classes=False), attention=setting.attention)
        recovery = LeastSquares()
        rows: list[dict[str, str | int | float]] = []
        purity = float(np.isin(self.dataset.train.labels[proxy], shard.classes).mean())

        def add(method: str, recovered: str, edge: EdgeModel) -> None:
            correct = self._correct(edge.model, edge.classes, images, indices, shard.classes)
            rows.append({
                "method": method, "recovery": recovered, "images": len(indices), "correct": correct,
                "params": count_params(edge.shape), "purity": round(purity, 3),
            })  # fmt: skip

        base = self._correct(self.base.model, tuple(range(self.base.shape.classes)), images, indices, shard.classes)
        rows.append({
            "method": "base", "recovery": "none", "images": len(indices), "correct": base,
            "params": count_params(self.base.shape), "purity": round(purity, 3),
        })  # fmt: skip
        ways: tuple[tuple[str, Method, IntArray], ...] = (
            ("random", Random(), proxy),
            ("global", shared, proxy),
            ("device", setting, proxy),
            ("oracle", setting, own),
        )
        for name, method, chosen in ways if split == "test" else ways[1:3]:  # settings are chosen by these two
            task = self._task(device, chosen, removed)
            edge = method.derive(task)
            add(name, "none", edge)
            add(name, "least_squares", recovery.recover(edge, task))
            if name == "global" and split == "test":  # one model for all: nothing of the device in it
                add("global", "least_squares_pool", recovery.recover(edge, self._task(device, common, removed)))
        return rows

    def _task(self, device: int, proxy: IntArray, removed: float) -> PruningTask:
        budget = Budget(params=int((1 - removed) * count_params(self.base.shape)))
        classes = self.partition.shards[device].classes
        return PruningTask(
            base=self.base,
            images=self.dataset.train,
            proxy=proxy,
            pool=self.partition.pool,
            evidence=self.evidence,
            budget=budget,
            classes=classes,
            seed=stream_seed(self.key[1], "derive", device),
        )

    def _chosen(self, device: int, size: int) -> IntArray:
        """Choose a proxy set from a mixture of the device's features, by a quota for each component."""
        shard, seed = self.partition.shards[device], self.key[1]
        private = self.space.project(self._features(shard.train))
        mixture = GaussianMixtureFit().fit(private, self.space, stream_seed(seed, "mixture", device))
        task = SelectionTask(
            self.points, self.partition.pool, mixture, self.space, size, stream_seed(seed, "proxy", device)
        )
        return QuotaRatio().select(task).indices

    def _judged(self, device: int, split: str) -> tuple[ImageSet, IntArray]:
        shard = self.partition.shards[device]
        if split == "test":
            return self.dataset.test, np.sort(stream(0, "judged", device).permutation(shard.test)[: self.judged])
        public = self.partition.validation[np.isin(self.dataset.train.labels[self.partition.validation], shard.classes)]
        chosen = stream(0, "judged", device).permutation(public)[: self.judged]
        return self.dataset.train, np.sort(chosen)

    def _correct(
        self, model: Any, rows: tuple[int, ...], images: ImageSet, indices: IntArray, classes: tuple[int, ...]
    ) -> int:
        logits = predict(model, self.base.preprocess, images, indices)
        asked = np.isin(rows, classes)
        answers = np.array(rows)[asked][logits[:, asked].argmax(1)]
        return int((answers == images.labels[indices]).sum())

    def _features(self, indices: IntArray) -> Any:
        return _features(self.base, self.dataset, indices, self.cache)


def _features(base: Base, dataset: Dataset, indices: IntArray, cache: Path) -> Any:
    key = ["evidence study", base.fingerprint, dataset.fingerprint, indices]
    return cached_array(cache, "features", key, lambda: extract(base, dataset.train, indices))


_SCALES: dict[str, tuple[DataSource, BaseSource]] = {
    "glyphs": (Glyphs(), GlyphBase()),
    "cifar": (Cifar100(), TrainedBase()),
}


def open_world(scale: str, seed: int, classes: int, devices: int, judged: int, cache: Path) -> StudyWorld:
    """Load data and base, deal random classes to devices, fit the public space."""
    data, source = _SCALES[scale]
    dataset = data.load()
    partition = Subtasks(choice="random", classes_per_device=classes, devices=devices).split(dataset, seed)
    base = source.load(cut_public(dataset, partition), cache)
    partition = replace(partition, pool=pool_sample(partition.pool, POOL_IMAGES))
    features = _features(base, dataset, partition.pool, cache)
    space = fit_space(features, seed=stream_seed(0, "space"))
    evidence = Evidence(base, dataset.train, cache, images_id=dataset.fingerprint)
    return StudyWorld(
        (scale, seed, classes), dataset, partition, base, evidence, space, space.project(features), cache, judged
    )
