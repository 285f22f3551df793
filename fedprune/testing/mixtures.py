"""The contract of a mixture fit: whatever number of images a device has, a mixture that the server accepts."""

import numpy as np

from fedprune.core.errors import DataError, ReportRejected
from fedprune.devices.budget import Budget
from fedprune.mixture.fit import MixtureFit
from fedprune.mixture.mixture import FeatureSpace, Mixture
from fedprune.mixture.report import Expected, Report, check_report, pack_report
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


def contract(fit: MixtureFit) -> list[Check]:
    """Return the checks of a mixture fit."""
    return [
        *asked(it_is_an_option_of_its_kind, kind=["mixture"], base=[MixtureFit]),
        *asked(any_number_of_images_gives_a_mixture_that_the_server_accepts, images=[1, 5, 60, 400]),
        *asked(equal_images_still_fit),
        *asked(no_image_is_refused),
        *asked(the_seed_decides),
    ]


def expect_accepted(mixture: Mixture, images: int, space: FeatureSpace, most: int) -> None:
    """Expect that the server accepts a report of `mixture` with at most `most` components.

    Raises:
        AssertionError: it refuses; the sentence is the server's.
    """
    upload = pack_report(Report(0, mixture, Budget(params=10), images))
    try:
        accepted = check_report(upload, Expected.of(space, 0, max_components=most))
    except ReportRejected as rejected:
        raise AssertionError(f"the server rejects the report: {rejected}") from rejected
    expect(accepted.images == images, f"{images} images were reported and {accepted.images} read.")


def any_number_of_images_gives_a_mixture_that_the_server_accepts(fit: MixtureFit, images: int) -> None:
    """Finite numbers, variances above the floor, no more components than `most_components` says."""
    world = clusters()
    points, labels = world.device(images)
    before = points.copy()
    mixture = fit.fit(points, world.space, 0, labels)
    expect_accepted(mixture, images, world.space, fit.most_components(CLASSES))
    expect(np.array_equal(before, points), "it changed the device's features in place.")


def equal_images_still_fit(fit: MixtureFit) -> None:
    """Copies of one image have no variance of their own."""
    world = clusters()
    mixture = fit.fit(np.ones((60, 6)), world.space, 1, np.zeros(60, dtype=np.int64))
    expect_accepted(mixture, 60, world.space, fit.most_components(CLASSES))


def no_image_is_refused(fit: MixtureFit) -> None:
    """A device without images has no mixture."""
    with expect_raises(DataError, "a device without images"):
        fit.fit(np.empty((0, 6)), clusters().space, 1, np.empty(0, dtype=np.int64))


def the_seed_decides(fit: MixtureFit) -> None:
    """Randomness comes from the seed and nothing else."""
    world = clusters()
    points, labels = world.device(200)
    first, second = under_two_generators(lambda: fit.fit(points, world.space, 4, labels))
    expect(np.array_equal(first.means, second.means), f"one seed gives two mixtures. {GLOBAL_RANDOMNESS}")
