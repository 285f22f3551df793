import dataclasses

import numpy as np
import pytest

from fedprune.attacks.architecture import Architecture
from fedprune.attacks.attack import AttackCase, summary
from fedprune.attacks.label_mix import LabelMix
from fedprune.attacks.linkage import Linkage
from fedprune.attacks.lira import LikelihoodRatio
from fedprune.attacks.membership import Membership, matched
from fedprune.attacks.nearest import Nearest
from fedprune.attacks.retrieval import Retrieval, retrieve
from fedprune.core.errors import DataError
from fedprune.mixture.gmm import GaussianMixtureFit
from fedprune.privacy.anchored import Anchored
from tests.attacks.conftest import Digits

FULL = GaussianMixtureFit(components=8, covariance="full", images_per_component=10)


def test_full_covariance_on_150_records_is_caught(raw_digits: Digits) -> None:
    cases = [raw_digits.case(device, 45, FULL) for device in (0, 3, 6)]
    for attack in (Membership(), LikelihoodRatio(shadows=16)):
        assert summary(attack.run(cases))["auc"] > 0.9


def test_the_default_on_as_many_records_is_near_chance(digits: Digits) -> None:
    cases = [digits.case(device, 45, GaussianMixtureFit()) for device in range(8)]
    found = summary(Membership().run(cases))
    assert 0.5 < found["auc"] < 0.62
    assert found["tpr_at_1pct_fpr"] < 0.05


def test_noise_brings_the_strongest_attack_to_chance(digits: Digits) -> None:
    fit = GaussianMixtureFit(covariance="diag", images_per_component=10)
    plain = [digits.case(device, 45, fit) for device in (0, 3, 6)]
    noisy = [digits.case(device, 45, fit, Anchored(epsilon=1.0)) for device in (0, 3, 6)]
    attack = LikelihoodRatio(shadows=32)
    assert summary(attack.run(plain))["auc"] > 0.7
    assert summary(attack.run(noisy))["auc"] < 0.56


def test_shadows_beat_the_free_attack(digits: Digits) -> None:
    cases = [digits.case(device, 45, GaussianMixtureFit(covariance="diag")) for device in (0, 3, 6)]
    assert summary(LikelihoodRatio(shadows=48).run(cases))["auc"] > summary(Membership().run(cases))["auc"]


def test_without_members_there_is_nothing_to_find(digits: Digits) -> None:
    """A control: if the report was fitted on others, the attack must see chance."""
    cases = []
    for device in range(8):
        case = digits.case(device, 40, GaussianMixtureFit())
        order = np.random.default_rng(device).permutation(len(case.outsiders))
        first, second = order[::2], order[1::2]
        cases.append(
            dataclasses.replace(
                case,
                members=case.outsiders[first],
                member_labels=case.outsider_labels[first],
                outsiders=case.outsiders[second],
                outsider_labels=case.outsider_labels[second],
            )
        )
    assert summary(Membership().run(cases))["auc"] == pytest.approx(0.5, abs=0.06)


def test_members_and_outsiders_share_the_class_mix(digits: Digits) -> None:
    case = digits.case(0, 30, GaussianMixtureFit())
    fewer = dataclasses.replace(case, outsiders=case.outsiders[20:], outsider_labels=case.outsider_labels[20:])
    inside, outside = matched(fewer)
    np.testing.assert_array_equal(np.sort(fewer.member_labels[inside]), np.sort(fewer.outsider_labels[outside]))
    assert len(inside) == 70
    for attack in (Membership(), LikelihoodRatio(shadows=4), Nearest(50)):
        assert attack.run([fewer])[0].truth.mean() == 0.5


def test_label_mix_reads_the_classes(digits: Digits) -> None:
    cases = [digits.case(device, 40, GaussianMixtureFit(images_per_component=10)) for device in range(4)]
    found = summary(LabelMix().run(cases))
    assert found["auc"] > 0.95
    assert found["label_tv"] < 0.25


def test_nearest_ratio_falls_with_the_number_of_components(digits: Digits) -> None:
    few, many = (
        summary(
            Nearest().run(
                [digits.case(d, 40, GaussianMixtureFit(components=k, images_per_component=1)) for d in (0, 5)]
            )
        )
        for k in (2, 60)
    )
    assert many["mean_distance_ratio"] < 0.8 < few["mean_distance_ratio"]
    assert many["components_of_3_or_fewer"] > 0.5
    assert few["components_of_3_or_fewer"] == 0.0
    assert many["auc"] > 0.8


def test_retrieval_shows_the_devices_classes(digits: Digits) -> None:
    case = digits.case(2, 40, GaussianMixtureFit(images_per_component=10))
    outcome = Retrieval().run([case])[0]
    assert outcome.figures["class_hit_rate"] > 0.8
    assert outcome.scores.shape == (800,)
    picked = case.pool[retrieve(case.mixture.means, case.pool)]
    assert picked.shape == case.mixture.means.shape


def test_linkage_recognises_devices_of_different_tasks_and_noise_hides_them(digits: Digits) -> None:
    fit = GaussianMixtureFit(images_per_component=10)
    plain = [digits.case(device, 40, fit) for device in (0, 3, 6)]
    assert summary(Linkage().run(plain))["recognised"] == 1.0
    drowned = [digits.case(device, 40, fit, Anchored(epsilon=0.05)) for device in (0, 3, 6)]
    assert summary(Linkage().run(drowned))["recognised"] < 1.0


def test_architecture_tells_like_tasks_from_unlike(digits: Digits) -> None:
    generator = np.random.default_rng(0)
    tasks = {0: generator.random(500) < 0.5, 5: generator.random(500) < 0.5}

    def with_kept(device: int, task: int) -> AttackCase:
        flip = generator.random(500) < 0.1
        case = digits.case(task, 20, GaussianMixtureFit())
        return dataclasses.replace(case, device=device, widths=(tasks[task] ^ flip).astype(float))

    cases = [with_kept(0, 0), with_kept(1, 0), with_kept(2, 5), with_kept(3, 5)]
    assert summary(Architecture().run(cases))["auc"] == 1.0
    with pytest.raises(DataError, match="edge models"):
        Architecture().run([dataclasses.replace(case, widths=None) for case in cases])
