"""A sharper lower bound on epsilon: the most powerful test between two worlds that differ by one known record."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta, norm

from fedprune.attacks.attack import Attack, AttackCase, Outcome
from fedprune.attacks.audit import draw_canaries
from fedprune.core.errors import ConfigError
from fedprune.core.random import stream, stream_seed
from fedprune.core.registry import register
from fedprune.mixture.mixture import FloatArray
from fedprune.privacy.calibration import noise_multiplier
from fedprune.privacy.gaussian import GaussianMechanism, Query, add_noise, answer

CANARIES = 20  # of which the strongest is taken


@register("attack", "two_worlds")
@dataclass(frozen=True)
class TwoWorlds(Attack):
    """A lower bound on epsilon by a matched filter between the worlds with and without one canary.

    The auditor sees what the mechanism's noise was added to and not the mixture alone, and knows every record but
    whether the canary is among them. By Neyman and Pearson's lemma nobody tells the worlds apart better: the ratio of
    likelihoods is a projection on what the canary adds, summed over the mechanism's questions. The threshold follows
    from the claim alone; exact bounds of both rates (Clopper and Pearson) give epsilon >= log((TPR - delta) / FPR).

    Attributes:
        trials: Releases in each world.
        confidence: Of the lower bound.
        delta: At which the bound is stated.
    """

    trials: int = 1000
    confidence: float = 0.95
    delta: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse values that leave no trial."""
        if self.trials < 2 or not 0 < self.confidence < 1:
            raise ValueError(f"trials is {self.trials}, confidence {self.confidence}; need at least 2, and below 1")

    def attack(self, case: AttackCase, others: Sequence[AttackCase]) -> Outcome:
        """Try both worlds, and bound epsilon."""
        mechanism = case.mechanism
        if not isinstance(mechanism, GaussianMechanism):
            raise ConfigError(
                "two_worlds audits mechanisms that add noise, for instance anchored. Try lira for others."
            )
        canary, label = _strongest(case, mechanism)
        inside = np.arange(2 * self.trials) % 2 == 1
        seeds = [stream_seed(case.seed, "two worlds", case.device, number) for number in range(2 * self.trials)]
        scores = np.array(
            [_score(case, mechanism, canary, label, *each) for each in zip(inside.tolist(), seeds, strict=True)]
        )
        threshold = best_threshold(mechanism, self.trials, self.delta, self.confidence)
        right, false = (int((scores[inside == world] > threshold).sum()) for world in (True, False))
        bound = max(0.0, epsilon_between(right, false, self.trials, self.delta, self.confidence))
        return Outcome(case.device, scores, inside, {"epsilon_lower": bound})


def _strongest(case: AttackCase, mechanism: GaussianMechanism) -> tuple[FloatArray, np.ndarray]:
    """Return the canary (1, d) that moves the first question most, of a few, and its label (1,)."""
    generator = stream(case.seed, "two worlds", case.device)
    canaries, label = draw_canaries(case, CANARIES, generator), generator.integers(case.class_count, size=1)
    question = next(mechanism.ask(case.space, case.class_count))
    moves = [np.linalg.norm(question.total(canary[None], label)) for canary in canaries]
    return canaries[[int(np.argmax(moves))]], label


def _score(
    case: AttackCase, mechanism: GaussianMechanism, canary: FloatArray, label: np.ndarray, inside: bool, seed: int
) -> float:
    """Return the logarithm of the ratio of likelihoods of one release, with the canary to without it."""
    score = 0.0

    def respond(query: Query) -> FloatArray:
        nonlocal score
        total, added = query.total(case.members, case.member_labels), query.total(canary, label)
        noisy = add_noise(total + inside * added, query.deviation, seed, mechanism.noise_seed, *query.purpose)
        score += float((added * (noisy - total - added / 2)).sum()) / query.deviation**2
        return noisy

    answer(mechanism.ask(case.space, case.class_count), respond)
    return score


def best_threshold(mechanism: GaussianMechanism, trials: int, delta: float, confidence: float) -> float:
    """Return the score above which the record is guessed to be there: the best if the noise is what is claimed.

    Then the logarithm of the ratio is normal with variance mu^2 and mean mu^2/2 with the record, -mu^2/2 without.
    """
    mu = 1 / noise_multiplier(mechanism.epsilon, mechanism.delta)
    steps = np.linspace(-1.0, 4.0, 101)
    bounds = [
        epsilon_between(int(trials * norm.sf(step - mu)), math.ceil(trials * norm.sf(step)), trials, delta, confidence)
        for step in steps
    ]
    return float(mu * (steps[int(np.argmax(bounds))] - mu / 2))


def epsilon_between(right: int, false: int, trials: int, delta: float, confidence: float) -> float:
    """Return what epsilon is at least: both rates' exact bounds, each with half of the risk.

    Args:
        right: Of `trials` with the record, how many were guessed so.
        false: Of `trials` without it, how many were guessed to have it.
        trials: In each world.
        delta: Of the (epsilon, delta) that is bounded.
        confidence: With which the bound holds.
    """
    risk = (1 - confidence) / 2
    least = float(beta.ppf(risk, right, trials - right + 1)) if right else 0.0
    most = float(beta.ppf(1 - risk, false + 1, trials - false)) if false < trials else 1.0
    return math.log((least - delta) / most) if least > delta else -math.inf
