import dataclasses
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprune.core.errors import ReportRejected
from fedprune.devices.budget import Budget
from fedprune.mixture.gmm import GaussianMixtureFit
from fedprune.mixture.mixture import COVARIANCES, FeatureSpace
from fedprune.mixture.report import Expected, Report, check_report, pack_report
from fedprune.mixture.wire import decode, encode


@pytest.fixture(scope="module")
def reports(space: FeatureSpace, pool_features: np.ndarray) -> dict[str, Report]:
    projected = space.project(pool_features[:120])
    return {
        covariance: Report(
            3,
            GaussianMixtureFit(covariance=covariance, components=4).fit(projected, space, seed=0),
            Budget(params=100_000, latency=0.25),
            120,
        )
        for covariance in COVARIANCES
    }


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize(("precision", "tolerance"), [("<f2", 3e-3), ("<f4", 1e-6), ("<f8", 1e-15)])
def test_round_trip(
    reports: dict[str, Report], space: FeatureSpace, covariance: str, precision: str, tolerance: float
) -> None:
    sent = reports[covariance]
    received = check_report(pack_report(sent, precision), Expected.of(space, 3))
    assert (received.device, received.images, received.budget) == (3, 120, sent.budget)
    assert received.mixture.covariance == covariance
    assert received.mixture.weights.sum() == pytest.approx(1.0, abs=1e-15)
    for part in ("weights", "means", "covariances"):
        expected = getattr(sent.mixture, part)
        np.testing.assert_allclose(
            getattr(received.mixture, part), expected, rtol=tolerance, atol=tolerance * np.abs(expected).max()
        )


def test_classes_travel_only_when_asked_for(reports: dict[str, Report], space: FeatureSpace) -> None:
    told = pack_report(dataclasses.replace(reports["diag"], classes=(1, 4, 7)))
    assert check_report(told, Expected.of(space, 3, class_count=10)).classes == (1, 4, 7)
    with pytest.raises(ReportRejected, match=r"^upload"):
        check_report(told, Expected.of(space, 3))
    with pytest.raises(ReportRejected, match=r"^upload"):
        check_report(pack_report(reports["diag"]), Expected.of(space, 3, class_count=10))
    for classes in ((1, 1), (2, 1), (-1, 3), (3, 10)):
        with pytest.raises(ReportRejected, match=r"^classes"):
            check_report(
                pack_report(dataclasses.replace(reports["diag"], classes=classes)),
                Expected.of(space, 3, class_count=10),
            )


def test_numpy_reads_what_we_write() -> None:
    import io

    for array in (np.arange(6.0).reshape(2, 3), np.array(5), np.arange(3, dtype="<f2")):
        data = encode(array)
        np.testing.assert_array_equal(np.load(io.BytesIO(data), allow_pickle=False), array)
        np.testing.assert_array_equal(decode("x", data, 6), array)


def bomb(shape: str) -> bytes:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def full(mutate: str) -> np.ndarray:
    matrices = np.repeat(np.eye(6)[None], 4, axis=0)
    if mutate == "asymmetric":
        matrices[1, 0, 1] = 0.3
    elif mutate == "indefinite":
        matrices[1, 0, 1] = matrices[1, 1, 0] = 2.0
    elif mutate == "ill":
        matrices[2, 0, 0] = 1e-7
    return matrices


LIES = {
    "not bytes": ("diag", "means", 17),
    "empty": ("diag", "means", b""),
    "truncated": ("diag", "means", encode(np.zeros((4, 6)))[:-1]),
    "trailing": ("diag", "means", encode(np.zeros((4, 6))) + b"0"),
    "header bomb": ("diag", "means", bomb("(999999999, 999999999)")),
    "negative shape": ("diag", "means", bomb("(-1, 6)")),
    "code in header": ("diag", "means", bomb("(__import__('os').getpid(),)")),
    "object": ("diag", "means", bomb("(1,)").replace(b"<f8", b"|O8")),
    "long header": ("diag", "means", b"\x93NUMPY\x01\x00\xff\xff" + b" " * 300),
    "version 2": ("diag", "means", b"\x93NUMPY\x02\x00" + bomb("()")[8:]),
    "wrong d": ("diag", "means", encode(np.zeros((4, 7)))),
    "wrong K": ("diag", "means", encode(np.zeros((5, 6)))),
    "integers": ("diag", "means", encode(np.zeros((4, 6), dtype="<i8"))),
    "nan": ("diag", "means", encode(np.full((4, 6), np.nan))),
    "infinite": ("diag", "covariances", encode(np.full((4, 6), np.inf))),
    "huge mean": ("diag", "means", encode(np.full((4, 6), 1e200))),
    "far mean": ("diag", "means", encode(np.full((4, 6), 6.0))),
    "no component": ("diag", "weights", encode(np.zeros(0))),
    "too many": ("diag", "weights", encode(np.full(1025, 1 / 1025))),
    "negative weight": ("diag", "weights", encode(np.array([0.5, 0.6, 0.2, -0.3]))),
    "sum 1.1": ("diag", "weights", encode(np.array([0.5, 0.3, 0.2, 0.1]))),
    "no variance": ("diag", "covariances", encode(np.zeros((4, 6)))),
    "negative variance": ("diag", "covariances", encode(np.full((4, 6), -1.0))),
    "wide": ("diag", "covariances", encode(np.full((4, 6), 1e6))),
    "asymmetric": ("full", "covariances", encode(full("asymmetric"))),
    "indefinite": ("full", "covariances", encode(full("indefinite"))),
    "ill-conditioned": ("full", "covariances", encode(full("ill"))),
    "no images": ("diag", "images", encode(np.array(0))),
    "10^12 images": ("diag", "images", encode(np.array(10**12))),
    "fractional images": ("diag", "images", encode(np.array(3.5))),
    "many scalars": ("diag", "images", encode(np.array([3]))),
    "other device": ("diag", "device", encode(np.array(4))),
    "other schema": ("diag", "schema", encode(np.array(2))),
    "no such type": ("diag", "covariance", encode(np.array(4))),
    "no limit": ("diag", "budget", encode(np.full(4, np.inf))),
    "nan budget": ("diag", "budget", encode(np.array([np.nan, 1, 1, 1]))),
    "zero budget": ("diag", "budget", encode(np.array([0.0, np.inf, np.inf, np.inf]))),
    "tiny budget": ("diag", "budget", encode(np.array([0.5, np.inf, np.inf, np.inf]))),
    "endless budget": ("diag", "budget", encode(np.array([1e300, np.inf, np.inf, np.inf]))),
}


@pytest.mark.parametrize("lie", LIES)
def test_each_lie_is_rejected_by_its_field(reports: dict[str, Report], space: FeatureSpace, lie: str) -> None:
    covariance, name, data = LIES[lie]
    upload = {**pack_report(reports[covariance]), name: data}
    with pytest.raises(ReportRejected, match=f"^{name}"):
        check_report(upload, Expected.of(space, 3))


def test_a_type_that_is_not_accepted_is_rejected(reports: dict[str, Report], space: FeatureSpace) -> None:
    expected = dataclasses.replace(Expected.of(space, 3), covariances=("spherical", "diag"))
    check_report(pack_report(reports["diag"]), expected)
    with pytest.raises(ReportRejected, match="full is not accepted"):
        check_report(pack_report(reports["full"]), expected)


def test_missing_and_extra_fields_are_rejected(reports: dict[str, Report], space: FeatureSpace) -> None:
    upload = pack_report(reports["diag"])
    for broken in ({}, {**upload, "extra": b""}, {k: v for k, v in upload.items() if k != "means"}, None, 3, b"abc"):
        with pytest.raises(ReportRejected, match=r"^upload"):
            check_report(broken, Expected.of(space, 3))  # type: ignore[arg-type]


def test_a_hundred_thousand_damaged_uploads_are_accepted_or_rejected(
    reports: dict[str, Report], space: FeatureSpace
) -> None:
    """Whatever the bytes, the check ends in a report or a rejection; seeded, so that a failure repeats."""
    generator = np.random.default_rng(0)
    uploads = [pack_report(report, precision) for report in reports.values() for precision in ("<f2", "<f8")]
    expected, outcomes = Expected.of(space, 3), {True: 0, False: 0}
    names = list(uploads[0])
    for _ in range(100_000):
        upload = dict(uploads[generator.integers(len(uploads))])
        name = names[generator.integers(len(names))]
        data = bytearray(upload[name])
        kind = generator.integers(4)
        if kind == 0:  # flip bytes anywhere
            for position in generator.integers(len(data), size=generator.integers(1, 4)):
                data[position] = generator.integers(256)
        elif kind == 1:  # cut
            data = data[: generator.integers(len(data) + 1)]
        elif kind == 2:  # another field's bytes
            data = bytearray(uploads[generator.integers(len(uploads))][names[generator.integers(len(names))]])
        else:  # noise
            data = bytearray(generator.bytes(int(generator.integers(200))))
        upload[name] = bytes(data)
        try:
            report = check_report(upload, expected)
        except ReportRejected:
            outcomes[False] += 1
        else:
            outcomes[True] += 1
            assert np.isfinite(report.mixture.means).all()
            assert report.mixture.weights.min() >= 0
    assert outcomes[False] > 50_000
    assert outcomes[True] > 1_000  # some damage is harmless, e.g. the last bit of a mean


@given(
    st.dictionaries(st.sampled_from(["schema", "device", "images", "covariance", "weights", "means", "x"]), st.binary())
)
@settings(max_examples=200, deadline=None)
def test_arbitrary_mappings_are_rejected(upload: dict[str, bytes]) -> None:
    with pytest.raises(ReportRejected):
        check_report(upload, Expected(0, 6, 5.0, 1.0))


def test_memory_stays_bounded(reports: dict[str, Report], space: FeatureSpace) -> None:
    expected = Expected.of(space, 3)
    uploads = [
        {**pack_report(reports["full"]), "covariances": bomb("(999999999, 1000, 1000)")},
        {**pack_report(reports["full"]), "covariances": bytes(50_000_000)},
        {**pack_report(reports["full"]), "weights": encode(np.full(1024, 1 / 1024))},
    ]
    for upload in uploads:
        tracemalloc.start()
        with pytest.raises(ReportRejected):
            check_report(upload, expected)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2_000_000
