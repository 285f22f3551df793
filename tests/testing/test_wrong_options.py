"""What wrong options of the other kinds hear."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from fedprune.attacks.label_mix import LabelMix
from fedprune.attacks.membership import Membership
from fedprune.cohorts.cohorts import Cohort, size_of
from fedprune.cohorts.none import NoCohorts
from fedprune.data.digits import Digits
from fedprune.data.iid import Iid
from fedprune.mixture.gmm import GaussianMixtureFit
from fedprune.privacy.anchored import Anchored
from fedprune.privacy.none import Unprotected
from fedprune.privacy.votes import Votes
from fedprune.proxy.label_histogram import LabelHistogram
from fedprune.proxy.oracle import Oracle
from fedprune.proxy.quota_ratio import QuotaRatio
from fedprune.proxy.random import Random
from fedprune.recovery.least_squares import LeastSquares
from fedprune.recovery.personal_finetune import PersonalFinetune
from fedprune.tokens.evit import Evit, EvitStage


@dataclass(frozen=True)
class Doubling(Random):
    """Chooses an image twice."""

    def choose(self, task, size):
        return np.repeat(task.indices[: size // 2], 2), {}


@dataclass(frozen=True)
class Positional(QuotaRatio):
    """Returns positions in place of indices."""

    def choose(self, task, size):
        chosen, diagnostics = super().choose(task, size)
        return np.flatnonzero(np.isin(task.indices, chosen)), diagnostics


@dataclass(frozen=True)
class Ordered(Random):
    """Takes the first images as they come."""

    def select(self, task):
        return replace(super().select(task), indices=np.sort(task.indices[: task.size]))


@dataclass(frozen=True)
class Spying(LabelHistogram):
    """Reads private labels where they are, and does not say so."""

    reads_private = False

    def choose(self, task, size):
        return super().choose(task, size) if task.private else (task.indices[:size], {})


@dataclass(frozen=True)
class FirstCome(NoCohorts):
    """Puts neighbours together in the order in which reports came."""

    def form(self, task):
        devices = list(task.budgets)
        pairs = zip(devices[::2], devices[1::2], strict=False)
        return sorted((Cohort.of(pair, task.budgets) for pair in pairs), key=lambda cohort: cohort.number)


@dataclass(frozen=True)
class Generous(NoCohorts):
    """Lets the largest budget of all count."""

    def form(self, task):
        return [Cohort(tuple(task.devices), max(task.budgets.values(), key=size_of))]


@dataclass(frozen=True)
class Narrow(GaussianMixtureFit):
    """Lets variances vanish."""

    def fit(self, projected, space, seed, labels=None):
        mixture = super().fit(projected, space, seed, labels)
        return replace(mixture, covariances=0 * mixture.covariances)


@dataclass(frozen=True)
class Overclaiming(Anchored):
    """Claims half of the epsilon that its noise proves."""

    def release(self, records):
        release = super().release(records)
        return replace(release, entries=tuple(replace(e, epsilon=e.epsilon / 2) for e in release.entries))


@dataclass(frozen=True)
class Noiseless(Votes):
    """Books noise and adds none."""

    def release(self, records):
        release = super().release(records)
        cells = records.space.centroids
        return replace(release, mixture=cells, images=len(records.points) or 1)


@dataclass(frozen=True)
class Repeating(Votes):
    """Draws secret noise from the seed."""

    def release(self, records):
        return super().release(replace(records, secret_noise=False))


@dataclass(frozen=True)
class Telling(Unprotected):
    """Books nothing."""

    def release(self, records):
        return replace(super().release(records), entries=())


@dataclass(frozen=True)
class Miscounting(Evit):
    """Its stages do matrix products that they do not count."""

    def stages(self, shape):
        stages = super().stages(shape)
        for stage in stages.values():
            stage.__class__ = WorkingStage
        return stages


class WorkingStage(EvitStage):
    def between(self, tokens, attended):
        tokens.x @ tokens.x.transpose(-1, -2)
        return super().between(tokens, attended)


@dataclass(frozen=True)
class Lasting(Evit):
    """Reduces at full strength too."""

    @property
    def shares(self):
        return (0.5, 0.4, 0.3)


@dataclass(frozen=True)
class InPlace(LeastSquares):
    """Refits the model that it was given."""

    def recover(self, edge, task):
        recovered = super().recover(edge, task)
        edge.model.load_state_dict(recovered.model.state_dict())
        return recovered


@dataclass(frozen=True)
class Whispering(LeastSquares):
    """Reads labels and says that it reads none."""

    def recover(self, edge, task):
        recovered = super().recover(edge, task)
        recovered.model.head.bias.data += float(task.images.labels[0])
        return recovered


@dataclass(frozen=True)
class Overhearing(Oracle):
    """Reads labels of the pool and says that it reads none."""

    def choose(self, task, size):
        return task.indices[np.argsort(task.private.pool_labels, kind="stable")[:size]], {}


@dataclass(frozen=True)
class Awake(PersonalFinetune):
    """Leaves the model in training mode."""

    def train(self, model, weights, rows, own):
        super().train(model, weights, rows, own)
        model.train()


@dataclass(frozen=True)
class Restless(PersonalFinetune):
    """Adds noise of torch's global generator."""

    def train(self, model, weights, rows, own):
        weights.head.bias.data += torch.rand(1)


@dataclass(frozen=True)
class Leaking(Iid):
    """Gives each device's images to the pool too."""

    def split(self, dataset, seed):
        partition = super().split(dataset, seed)
        return replace(partition, pool=np.sort(np.append(partition.pool, partition.shards[0].train[:1])))


@dataclass(frozen=True)
class Lawless(Iid):
    """Tests all devices on the first test images."""

    def split(self, dataset, seed):
        partition = super().split(dataset, seed)
        return replace(partition, shards=tuple(replace(shard, test=np.arange(40)) for shard in partition.shards))


@dataclass(frozen=True)
class Mislabelled(Digits):
    """Names one class too few."""

    def load(self):
        data = super().load()
        return replace(data, classes=data.classes[:-1])


@dataclass(frozen=True)
class Guessing(Membership):
    """Scores by chance."""

    def attack(self, case, others):
        outcome = super().attack(case, others)
        return replace(outcome, scores=np.random.rand(len(outcome.scores)))  # noqa: NPY002


@dataclass(frozen=True)
class Empty(LabelMix):
    """Gives no number where there is none."""

    def attack(self, case, others):
        outcome = super().attack(case, others)
        return replace(outcome, scores=outcome.scores * np.nan)


@pytest.mark.parametrize(
    ("kind", "wrong", "promise", "sentence"),
    [
        ("selector", Doubling, "the_set_has_its_size_no_image_twice_and_rises", "an image was chosen twice"),
        ("selector", Positional, "the_set_has_its_size_no_image_twice_and_rises", "an image that is not in the pool"),
        ("selector", Ordered, "the_order_of_the_pool_changes_nothing", "another order of the same pool"),
        ("selector", Spying, "a_private_view_changes_nothing", "say reads_private = True"),
        ("selector", Overhearing, "labels_that_it_does_not_read_change_nothing", "with other labels of the pool"),
        ("cohorts", FirstCome, "the_order_of_reports_changes_nothing", "another order of the same reports"),
        ("cohorts", Generous, "a_cohorts_budget_meets_every_members", "exceeds the budget of a member"),
        ("mixture", Narrow, "any_number_of_images", "rejects the report: covariances: smaller than the floor"),
        ("mechanism", Overclaiming, "entries_prove_the_claimed_epsilon", r"the option says epsilon 0\.5"),
        ("mechanism", Noiseless, "noise_follows_its_seeds", "another seed gives the same release: is there noise"),
        ("mechanism", Repeating, "secret_noise_cannot_be_drawn_again", "secret noise is the same twice"),
        ("mechanism", Telling, "entries_name_what_was_released", r"no entry books .* under its name, but \[\]"),
        ("tokens", Miscounting, "macs_are_those_that_torch_counts", r"it counts \d+ MACs, and torch sees \d+"),
        ("tokens", Lasting, "keep_ratio_one_is_the_base", "with keep=1 logits are"),
        ("recovery", InPlace, "weights_change_and_nothing_else", "the edge model's .* was changed in place"),
        ("recovery", Whispering, "labels_that_it_does_not_read_change_nothing", "with other labels the recovered"),
        ("personal", Awake, "it_trains_the_same_way_every_time", "left in training mode"),
        ("personal", Restless, "it_trains_the_same_way_every_time", "the same training twice differs in head.bias"),
        ("partition", Leaking, "no_image_stands_in_two_parts", "an image of train stands in two parts"),
        ("partition", Lawless, "every_device_has_images", "device 0's test images follow another label law"),
        (
            "data",
            Mislabelled,
            "labels_and_subtasks_name_classes",
            "labels run from 0 to 9, and there are 9 class names",
        ),
        ("attack", Guessing, "the_same_cases_give_the_same_summary", "the same cases give two summaries"),
        ("attack", Empty, "every_guess_has_its_truth", "a score of device 0 is not finite"),
    ],
)
def test_a_wrong_option_hears_what_is_wrong(hears, kind, wrong, promise, sentence):
    hears(kind, wrong, promise, sentence)
