"""What a device may fit, the server accepts: one constant at both ends."""

import numpy as np
import pytest

from fedprune.core.errors import ConfigError
from fedprune.core.registry import build
from fedprune.devices.budget import Budget
from fedprune.mixture.gmm import GaussianMixtureFit
from fedprune.mixture.mixture import LOWEST_FLOOR
from fedprune.mixture.report import Expected, Report, check_report, pack_report
from tests.situations import saw


@pytest.mark.parametrize("covariance", ["spherical", "diag", "tied", "full"])
def test_the_lowest_floor_that_a_fit_may_use_is_accepted(space, covariance):
    points = np.zeros((60, space.basis.shape[1]))  # no spread at all: every variance is the floor
    mixture = GaussianMixtureFit(covariance=covariance, floor=LOWEST_FLOOR).fit(points, space, seed=0)
    report = Report(device=1, mixture=mixture, budget=Budget(params=1000), images=60)
    checked = check_report(pack_report(report), Expected.of(space, 1))
    assert checked.mixture.means.shape == mixture.means.shape


def test_a_floor_that_the_server_would_reject_is_refused():
    with pytest.raises(ConfigError, match=r"floor is 1e-06; the server accepts 0.0001 or more") as caught:
        build(GaussianMixtureFit, {"floor": 1e-6})
    saw("`mixture.floor=1e-6`", caught.value)
