"""Attack the reports of a run: as an attacker sees them, with the truth that only a simulation has."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from fedprune.attacks.attack import Attack, AttackCase, summary
from fedprune.attacks.curve import draw_roc
from fedprune.core.errors import ConfigError, DataError, ModelError
from fedprune.core.files import write_json, write_text
from fedprune.core.random import stream_seed
from fedprune.core.registry import from_dict, register, to_dict
from fedprune.experiment.config import RunConfig
from fedprune.experiment.journal import model_file
from fedprune.experiment.reopen import reopen
from fedprune.mixture.mixture import FloatArray
from fedprune.protocol.storage import StoredModel
from fedprune.study.ask_model import ask_model
from fedprune.study.measurement import Measurement, Number
from fedprune.vit.shape import Shape

ABOUT_RECORDS = ("membership", "lira", "nearest", "audit", "two_worlds")  # epsilon says nothing about labels or devices


@register("measurement", "attack")
@dataclass(frozen=True)
class AttackReports(Measurement):
    """Attacks on reports, devices pooled: `attack:lira:auc`, with settings `attack:lira:shadows=32:auc`.

    Attributes:
        attack: The attack.
        settings: What its options are set to, as (key, value).
        seed: Of the attack's own draws.
    """

    attack: str
    settings: tuple[tuple[str, Any], ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        self._option()

    @classmethod
    def of(cls, words: Sequence[str]) -> Self:
        """Build the measurement from the attack's name and settings `key=value`.

        Raises:
            ConfigError: there is no such attack, or it has no such setting.
        """
        if not words:
            raise ConfigError("write attack:<attack>:<number>")
        return cls(words[0], tuple(read_setting(word) for word in words[1:]))

    @property
    def needs_models(self) -> bool:
        """Only where the attack looks at edge models."""
        return self._option().reads_models

    @property
    def numbers(self) -> Mapping[str, Number]:
        """Means over devices, scores pooled."""
        what = f"{self.attack.replace('_', ' ')} attack"
        return {
            "auc": Number(f"{what}: AUC", False),
            "tpr_at_1pct_fpr": Number(f"{what}: TPR at 1 % FPR", False),
            "tpr_at_0.1pct_fpr": Number(f"{what}: TPR at 0.1 % FPR", False),
            "label_tv": Number(f"{what}: total variation between guessed and true label mix", None),
        }

    @property
    def stem(self) -> str:
        """The attack's name, with everything that is not as usual."""
        changed = [f"{key}={value}" for key, value in self.settings] + ([f"seed={self.seed}"] if self.seed else [])
        return ",".join([self.attack, *changed])

    @property
    def file(self) -> str:
        """`attacks/<attack>.json`; beside it lie a row a device (`.csv`) and the ROC on log axes (`.png`)."""
        return f"attacks/{self.stem}.json"

    def measure(self, folder: Path, config: RunConfig) -> dict[str, Any]:
        """Attack every accepted report."""
        outcomes = self._option().run(attack_cases(folder, config, self.seed))
        mechanism = to_dict(config.mechanism)
        found: dict[str, Any] = _plain(
            {
                "attack": self.attack,
                "run": config.identity(),
                "mechanism": mechanism["name"],
                "seed": self.seed,
                "settings": dict(self.settings),
                **summary(outcomes),
                "devices": len(outcomes),
            }
        )
        path = folder / self.file
        rows = pd.DataFrame([outcome.row() for outcome in outcomes])
        write_text(path.with_suffix(".csv"), rows.to_csv(index=False))
        write_json(path, found)
        epsilon = mechanism.get("epsilon") if self.attack in ABOUT_RECORDS else None
        draw_roc(path.with_suffix(".png"), {self.attack: outcomes}, epsilon, mechanism.get("delta", 0.0))
        return found

    def _option(self) -> Attack:
        option: Attack = from_dict("attack", {"name": self.attack, **dict(self.settings)})
        return option


def read_setting(text: str) -> tuple[str, Any]:
    """Read `key=value`, the value as JSON where it is some.

    Raises:
        ConfigError: it is none.
    """
    key, _, value = text.partition("=")
    if not key or not value:
        raise ConfigError(f"{text!r} sets nothing; write key=value, for instance shadows=32")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def attack_cases(folder: Path, config: RunConfig, seed: int) -> list[AttackCase]:
    """Rebuild space, pool and private features of a run and pair them with the reports that were accepted.

    Outsiders are the devices' private test images: of the same law of labels, and no report rests on them.

    Raises:
        ConfigError: the devices test on their training images, so that there are no outsiders.
        DataError: the run has no report.
    """
    if getattr(config.partition, "test", None) == "train_images":
        raise ConfigError("With partition.test=train_images no image is an outsider. Attack a run with test_images.")
    replay = reopen(folder, config)
    public = replay.simulation.public
    space = public.space
    cases = []
    for device, report in sorted(replay.server.reports.items()):
        shard, stored = replay.simulation.shard(device), _stored(model_file(folder, device))
        cases.append(
            AttackCase(
                device=device,
                mixture=report.mixture,
                space=space,
                pool=public.points,
                pool_labels=public.images.labels,
                members=space.project(shard.train_features()),
                member_labels=shard.train.labels,
                outsiders=space.project(shard.test_features()),
                outsider_labels=shard.test.labels,
                class_count=shard.class_count,
                fit=config.mixture,
                mechanism=config.mechanism,
                seed=stream_seed(seed, "attack"),
                widths=None if stored is None else widths_of(stored.shape),
                answers=None if stored is None else partial(ask_model, stored, shard, public),
            )
        )
    if not cases:
        raise DataError(f"{folder} holds no accepted report. Attack a run in which a device reported.")
    return cases


def widths_of(shape: Shape) -> FloatArray:
    """Return the widths of a shape as one vector: embedding, then each block's heads, qk, v, neurons."""
    blocks = [[block.heads, block.qk, block.v, block.neurons] for block in shape.blocks]
    return np.array([shape.embed, *np.ravel(blocks)], dtype=np.float64)


def _stored(path: Path) -> StoredModel | None:
    """Return a stored edge model, or None where the run stored none."""
    try:
        return StoredModel.read(path)
    except ModelError:
        return None


def _plain(values: Any) -> Any:
    """JSON has no NaN: what could not be measured is null."""
    if isinstance(values, dict):
        return {key: _plain(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_plain(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
