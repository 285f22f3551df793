"""What work a single report can make the server do."""

import tracemalloc

import numpy as np
import pytest
from scipy.special import logsumexp

from fedprune.core.errors import ReportRejected
from fedprune.core.registry import from_dict
from fedprune.devices.budget import Budget
from fedprune.mixture import density
from fedprune.mixture.fit import MAX_COMPONENTS
from fedprune.mixture.mixture import Mixture
from fedprune.mixture.report import Report, pack_report
from fedprune.privacy.mechanism import Records
from fedprune.protocol.simulation import open_simulation
from tests.situations import held


@pytest.fixture(scope="module")
def server(small_config):
    return open_simulation(small_config.setup()).server(small_config.server_options())


def with_components(server, count):
    dimensions = server.world.space.basis.shape[1]
    means = np.zeros((count, dimensions))
    variances = np.full(count, server.world.space.variance)
    return pack_report(
        Report(0, Mixture(np.full(count, 1 / count), means, variances, "spherical"), Budget(params=10**5), 9)
    )


def test_a_mixture_has_no_more_components_than_were_asked_for(server):
    asked = server.world.mixture.components
    server.receive(0, with_components(server, asked))
    for count in (asked + 1, MAX_COMPONENTS):
        with pytest.raises(ReportRejected, match=r"^(weights|upload)"):
            server.receive(0, with_components(server, count))
    held(
        "A report makes no more work than was asked for",
        "more components than the configuration allows; a large pool",
        "one component more, and as many as there can be",
        "rejected; densities hold a piece at a time",
    )


@pytest.mark.parametrize("name", ["gmm", "gmm_bic", "gmm_per_class"])
@pytest.mark.parametrize("mechanism", ["none", "clip_only", "anchored", "votes", "dp_em", "per_class_gaussian"])
def test_no_honest_mixture_is_larger_than_its_bound(server, name, mechanism):
    """Many images of all classes, no noise to speak of: as many components as there can be."""
    options = {} if mechanism in ("none", "clip_only") else {"epsilon": 1e4}
    fit = from_dict("mixture", {"name": name, "images_per_component": 1})
    option = from_dict("mechanism", {"name": mechanism, **options})
    points, labels = server.world.points[:400], np.arange(400) % 36
    release = option.release(Records(points, server.world.space, fit, 0, labels, 36))
    assert len(release.mixture.weights) <= option.most_components(fit, server.world.space, 36) < MAX_COMPONENTS


def test_densities_over_a_large_pool_hold_a_piece_at_a_time(monkeypatch):
    generator = np.random.default_rng(0)
    points, means = generator.normal(size=(20_000, 8)), generator.normal(size=(256, 8))
    mixture = Mixture(np.full(256, 1 / 256), means, np.ones(256), "spherical")
    whole = logsumexp(density.weighted_log_density(mixture, points), axis=1)
    monkeypatch.setattr(density, "CHUNK", 2**16)
    tracemalloc.start()
    pieces = density.log_density(mixture, points)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(pieces, whole, rtol=1e-12)
    assert peak < 12 * 8 * 2**16, "all at once they are 41 MB, and several times that on the way"
    assert density.log_density(mixture, points[:0]).shape == (0,)
