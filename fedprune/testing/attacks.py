"""The contract of an attack: guesses with their truth, the same every time, in a summary that a record can hold."""

import json
from dataclasses import replace
from functools import cache, partial

import numpy as np

from fedprune.attacks.attack import Attack, AttackCase, ModelAnswers, summary
from fedprune.core.errors import ConfigError, DataError
from fedprune.mixture.gmm import GaussianMixtureFit
from fedprune.privacy.anchored import Anchored
from fedprune.privacy.mechanism import Records
from fedprune.privacy.none import Unprotected
from fedprune.testing.contract import (
    GLOBAL_RANDOMNESS,
    Check,
    asked,
    expect,
    expect_raises,
    it_is_an_option_of_its_kind,
    under_two_generators,
)
from fedprune.testing.spaces import CLASSES, clusters


def contract(attack: Attack) -> list[Check]:
    """Return the checks of an attack."""
    checks = [
        *asked(it_is_an_option_of_its_kind, kind=["attack"], base=[Attack]),
        *asked(every_guess_has_its_truth, noise=[False, True]),
        *asked(the_same_cases_give_the_same_summary),
    ]
    return checks + asked(without_models_it_is_refused) if getattr(attack, "reads_models", False) else checks


@cache
def cases(noise: bool = True) -> tuple[AttackCase, ...]:
    """Return three devices under attack, two of them with the same classes, 60 members and outsiders each."""
    world, fit = clusters(), GaussianMixtureFit(images_per_component=10)
    mechanism = Anchored(epsilon=8.0) if noise else Unprotected()
    pool = world.space.project(world.features)
    found = []
    for device, classes in enumerate(((0, 1, 2), (0, 1, 2), (5, 6, 7))):
        members, labels = world.device(60, classes, seed=device)
        outsiders, outsider_labels = world.device(60, classes, seed=10 + device)
        mixture = mechanism.release(Records(members, world.space, fit, device, labels, CLASSES)).mixture
        about = (members, labels, outsiders, outsider_labels, CLASSES, fit, mechanism, device)
        widths = np.random.default_rng(classes[0]).random(50)
        answers = partial(_answers, device, len(members), len(outsiders))
        found.append(AttackCase(device, mixture, world.space, pool, world.labels, *about, widths, answers))
    return tuple(found)


def _answers(device: int, members: int, outsiders: int) -> ModelAnswers:
    random = np.random.default_rng(device)
    shares = random.dirichlet(np.ones(CLASSES), size=2)
    return ModelAnswers(random.normal(size=members), random.normal(size=outsiders), *shares)


def every_guess_has_its_truth(attack: Attack, noise: bool) -> None:
    """One outcome a device: finite scores, as many truths. Reports without noise may be refused in a sentence."""
    try:
        outcomes = attack.run(cases(noise))
    except ConfigError:
        expect(not noise, "reports behind a mechanism with noise are refused.")
        return
    devices = [outcome.device for outcome in outcomes]
    expect(devices == [0, 1, 2], f"three devices were attacked and the outcomes are those of {devices}.")
    for outcome in outcomes:
        scores, truth = np.asarray(outcome.scores), np.asarray(outcome.truth)
        paired = scores.ndim == 1 and scores.shape == truth.shape and truth.dtype == bool
        expect(paired, f"scores are {scores.dtype} {scores.shape} and truth {truth.dtype} {truth.shape}.")
        expect(bool(np.isfinite(scores).all()), f"a score of device {outcome.device} is not finite.")
        missing = {"device", "auc", "tpr_at_1pct_fpr"} - set(outcome.row())
        expect(not missing, f"the row of device {outcome.device} lacks {sorted(missing)}.")


def the_same_cases_give_the_same_summary(attack: Attack) -> None:
    """Plain JSON without NaN, from the cases' seeds and nothing else."""
    first, second = under_two_generators(lambda: json.dumps(summary(attack.run(cases())), allow_nan=False))
    expect(first == second, f"the same cases give two summaries. {GLOBAL_RANDOMNESS}")


def without_models_it_is_refused(attack: Attack) -> None:
    """Runs that prune nothing have no edge models to look at."""
    with expect_raises(DataError, "a run without edge models", "edge models"):
        attack.run([replace(case, widths=None, answers=None) for case in cases()])
