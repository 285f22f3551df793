"""How much privacy is certainly *not* there: a lower bound on epsilon from canaries."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from fedprune.attacks.attack import Attack, AttackCase, Outcome
from fedprune.core.random import stream, stream_seed
from fedprune.core.registry import register
from fedprune.mixture.density import log_density
from fedprune.mixture.mixture import FloatArray


@register("attack", "audit")
@dataclass(frozen=True)
class Audit(Attack):
    """A lower bound on epsilon by canaries in one run (Steinke, Nasr and Jagielski 2023); must stay below the claim.

    Attributes:
        canaries: Canaries a repetition, each in with probability one half.
        repetitions: Independent reports with canaries of their own.
        guesses: Share of the canaries that the auditor dares to guess.
        confidence: Of the lower bound.
        delta: At which the bound is stated.
    """

    canaries: int = 20
    repetitions: int = 10
    guesses: float = 0.5
    confidence: float = 0.95
    delta: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse values that leave no guess."""
        if self.canaries < 2 or self.repetitions < 1:
            raise ValueError(f"canaries is {self.canaries}, repetitions {self.repetitions}; need at least 2 and 1")
        if not 0 < self.guesses <= 1:
            raise ValueError(f"guesses is {self.guesses}; it must lie between 0 and 1")

    def attack(self, case: AttackCase, others: Sequence[AttackCase]) -> Outcome:
        """Guess the highest scores in and the lowest out; repetitions are parallel runs on their own canaries."""
        scores, truth, right, made = [], [], 0, 0
        for repetition in range(self.repetitions):
            score, included = self._repeat(case, repetition)
            side = max(1, int(self.guesses * self.canaries / 2))
            order = np.argsort(score, kind="stable")
            right += int(included[order[-side:]].sum() + (~included[order[:side]]).sum())
            made += 2 * side
            scores.append(score)
            truth.append(included)
        bound = epsilon_lower(self.canaries * self.repetitions, made, right, self.delta, self.confidence)
        figures = {"epsilon_lower": bound, "guesses": float(made), "right": float(right)}
        return Outcome(case.device, np.concatenate(scores), np.concatenate(truth), figures)

    def _repeat(self, case: AttackCase, repetition: int) -> tuple[FloatArray, np.ndarray]:
        generator = stream(case.seed, "audit", case.device, repetition)
        canaries = draw_canaries(case, self.canaries, generator)
        included = generator.random(self.canaries) < 0.5
        points = np.concatenate([case.members, canaries[included]])
        labels = np.concatenate([case.member_labels, generator.integers(case.class_count, size=included.sum())])
        report = case.release(points, labels, stream_seed(case.seed, "audit", case.device, repetition))
        return log_density(report, canaries) - log_density(case.space.anchors, canaries), included


def draw_canaries(case: AttackCase, count: int, generator: np.random.Generator) -> FloatArray:
    """Draw points on the sphere of the public radius: as far from all others as a clipped record can be."""
    directions = generator.standard_normal((count, case.members.shape[1]))
    return np.asarray(case.space.radius * directions / np.linalg.norm(directions, axis=1, keepdims=True))


def epsilon_lower(canaries: int, guesses: int, right: int, delta: float, confidence: float = 0.95) -> float:
    """Return the largest epsilon that the outcome rejects, 0 if none (Steinke et al. 2023, theorem 5.2)."""
    if p_value(canaries, guesses, right, 0.0, delta) > 1 - confidence:
        return 0.0
    low, high = 0.0, 1.0
    while p_value(canaries, guesses, right, high, delta) <= 1 - confidence:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        rejected = p_value(canaries, guesses, right, middle, delta) <= 1 - confidence
        low, high = (middle, high) if rejected else (low, middle)
    return low


def p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Return how likely `right` or more correct guesses are at most, if the mechanism is (epsilon, delta)-private.

    P[Binomial(guesses, e^epsilon / (1 + e^epsilon)) >= right], plus what delta may add: 2 canaries delta times the
    largest mean of the binomial's mass over the i values below `right`.
    """
    chance = 1 / (1 + math.exp(-epsilon))
    tail = float(binom.sf(right - 1, guesses, chance))
    below = binom.pmf(np.arange(right - 1, -1, -1), guesses, chance)
    slack = float((np.cumsum(below) / np.arange(1, right + 1)).max()) if right else 0.0
    return min(1.0, tail + 2 * canaries * delta * slack)
