import dataclasses
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from fedprune.core.errors import ReportRejected
from fedprune.devices.budget import Budget
from fedprune.mixture.gmm import GaussianMixtureFit
from fedprune.mixture.mixture import COVARIANCES, FeatureSpace, Mixture, covariances_shape
from fedprune.mixture.report import Expected, Report, check_report, pack_report
from fedprune.mixture.wire import decode, encode
from tests.situations import held

DAMAGED, WRONG = 100_000, 8_000  # uploads that are tried


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


def test_safetensors_reads_what_we_write() -> None:
    for array in (np.arange(6.0).reshape(2, 3), np.array(5), np.arange(3, dtype="<f2"), np.eye(3)[:, :2].T):
        blob = encode({"x": array})
        np.testing.assert_array_equal(load(blob)["x"], array)
        np.testing.assert_array_equal(decode(blob, len(blob))["x"], array)


def blob(header: str, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header.encode() + data


def entry(dtype: str, shape: str, begin: int, end: int) -> str:
    return f'{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}'


GOOD = encode({"x": np.zeros(2, dtype="<f4")})
HEADER = GOOD[8:-8].decode()
FORGED = {
    "not bytes": 17,
    "a bytearray": bytearray(GOOD),
    "empty": b"",
    "no header": bytes(8),
    "only a length": (2).to_bytes(8, "little"),
    "endless header": b"\xff" * 8 + GOOD[8:],
    "long header": blob(" " * 5000, bytes(8)),
    "header beyond the end": (900).to_bytes(8, "little") + GOOD[8:],
    "not JSON": blob("{'x': 1}", bytes(8)),
    "deep JSON": blob("[" * 1000),
    "a list": blob("[]"),
    "no such type": blob('{"x":' + entry("F99", "[2]", 0, 8) + "}", bytes(8)),
    "another type": blob('{"x":' + entry("I32", "[2]", 0, 8) + "}", bytes(8)),
    "a type that NumPy lacks": blob('{"x":' + entry("BF16", "[4]", 0, 8) + "}", bytes(8)),
    "truth values": blob('{"x":' + entry("BOOL", "[8]", 0, 8) + "}", bytes(8)),
    "bomb": blob('{"x":' + entry("F64", "[999999999, 999999999]", 0, 8) + "}", bytes(8)),
    "overflowing bomb": blob('{"x":' + entry("F64", f"[{2**63}, {2**63}, 4]", 0, 0) + "}"),
    "negative shape": blob('{"x":' + entry("F32", "[-1]", 0, 8) + "}", bytes(8)),
    "offsets beyond the end": blob('{"x":' + entry("F32", "[4]", 0, 16) + "}", bytes(8)),
    "offsets back to front": blob('{"x":' + entry("F32", "[2]", 8, 0) + "}", bytes(8)),
    "overlapping": blob('{"x":' + entry("F32", "[2]", 0, 8) + ',"y":' + entry("F32", "[2]", 0, 8) + "}", bytes(8)),
    "a hole": blob('{"x":' + entry("F32", "[2]", 8, 16) + "}", bytes(16)),
    "the same name twice": blob(
        '{"x":' + entry("F32", "[1]", 0, 4) + ',"x":' + entry("F32", "[1]", 4, 8) + "}", bytes(8)
    ),
    "the same key twice": blob(HEADER.replace('"dtype"', '"dtype":"F32","dtype"').strip() + "     ", bytes(8)),
    "trailing": GOOD + b"0",
    "truncated": GOOD[:-1],
    "metadata": save({"x": np.zeros(2, dtype="<f4")}, {"note": "look"}),
    "another order": blob('{"y":' + entry("F32", "[1]", 4, 8) + ',"x":' + entry("F32", "[1]", 0, 4) + "}", bytes(8)),
    "spaces": blob(HEADER.strip() + " " * (40 + (-len(HEADER.strip())) % 8), bytes(8)),
    "escaped name": blob(HEADER.strip().replace('"x"', '"\\u0078"') + "  ", bytes(8)),
    "unpadded": blob(HEADER.rstrip() + " " * ((5 - len(HEADER.rstrip())) % 8), bytes(8)),
    "another file": b"PK\x03\x04" + bytes(100),
    "npy": b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }" + bytes(30),
}


@pytest.mark.parametrize("forgery", FORGED)
def test_a_blob_that_encode_would_not_write_is_rejected(forgery: str) -> None:
    decode(GOOD, 1000)
    with pytest.raises(ReportRejected, match=r"^upload"):
        decode(FORGED[forgery], 10_000)  # type: ignore[arg-type]


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
    "wrong d": ("diag", "means", np.zeros((4, 7))),
    "wrong K": ("diag", "means", np.zeros((5, 6))),
    "integers": ("diag", "means", np.zeros((4, 6), dtype="<i8")),
    "nan": ("diag", "means", np.full((4, 6), np.nan)),
    "infinite": ("diag", "covariances", np.full((4, 6), np.inf)),
    "huge mean": ("diag", "means", np.full((4, 6), 1e200)),
    "far mean": ("diag", "means", np.full((4, 6), 6.0)),
    "no component": ("diag", "weights", np.zeros(0)),
    "too many": ("diag", "weights", np.full(1025, 1 / 1025)),
    "negative weight": ("diag", "weights", np.array([0.5, 0.6, 0.2, -0.3])),
    "sum 1.1": ("diag", "weights", np.array([0.5, 0.3, 0.2, 0.1])),
    "no variance": ("diag", "covariances", np.zeros((4, 6))),
    "negative variance": ("diag", "covariances", np.full((4, 6), -1.0)),
    "wide": ("diag", "covariances", np.full((4, 6), 1e6)),
    "asymmetric": ("full", "covariances", full("asymmetric")),
    "indefinite": ("full", "covariances", full("indefinite")),
    "ill-conditioned": ("full", "covariances", full("ill")),
    "no images": ("diag", "images", np.array(0)),
    "10^12 images": ("diag", "images", np.array(10**12)),
    "fractional images": ("diag", "images", np.array(3.5)),
    "many scalars": ("diag", "images", np.array([3])),
    "other device": ("diag", "device", np.array(4)),
    "other schema": ("diag", "schema", np.array(1)),
    "one dimension": ("diag", "means", np.zeros(24)),
    "four dimensions": ("diag", "means", np.zeros((4, 6, 1, 1))),
    "nothing": ("diag", "means", np.zeros((0, 6))),
    "no such type": ("diag", "covariance", np.array(4)),
    "no limit": ("diag", "budget", np.full(4, np.inf)),
    "nan budget": ("diag", "budget", np.array([np.nan, 1, 1, 1])),
    "zero budget": ("diag", "budget", np.array([0.0, np.inf, np.inf, np.inf])),
    "tiny budget": ("diag", "budget", np.array([0.5, np.inf, np.inf, np.inf])),
    "endless budget": ("diag", "budget", np.array([1e300, np.inf, np.inf, np.inf])),
}


@pytest.mark.parametrize("lie", LIES)
def test_each_lie_is_rejected_by_its_field(reports: dict[str, Report], space: FeatureSpace, lie: str) -> None:
    covariance, name, values = LIES[lie]
    upload = load(pack_report(reports[covariance]))
    with pytest.raises(ReportRejected, match=f"^{name}"):
        check_report(encode({**upload, name: np.asarray(values)}), Expected.of(space, 3))


def test_a_type_that_is_not_accepted_is_rejected(reports: dict[str, Report], space: FeatureSpace) -> None:
    expected = dataclasses.replace(Expected.of(space, 3), covariances=("spherical", "diag"))
    check_report(pack_report(reports["diag"]), expected)
    with pytest.raises(ReportRejected, match="full is not accepted"):
        check_report(pack_report(reports["full"]), expected)


def test_missing_and_extra_fields_are_rejected(reports: dict[str, Report], space: FeatureSpace) -> None:
    upload = load(pack_report(reports["diag"]))
    check_report(encode(upload), Expected.of(space, 3))
    without = {name: values for name, values in upload.items() if name != "means"}
    for broken in (encode({}), encode({**upload, "extra": np.zeros(1)}), encode(without), None, 3, b"abc"):
        with pytest.raises(ReportRejected, match=r"^upload"):
            check_report(broken, Expected.of(space, 3))  # type: ignore[arg-type]


def test_a_report_takes_few_bytes_beside_its_numbers(reports: dict[str, Report]) -> None:
    for report in reports.values():
        numbers = 4 * report.mixture.parameters + 8 * (4 + 4)
        assert len(pack_report(report)) < numbers + 800


def test_the_largest_report_is_not_too_large(space: FeatureSpace) -> None:
    """The limit on bytes leaves room for the largest mixture of each type in the finest numbers, and little more."""
    expected = dataclasses.replace(Expected.of(space, 3, class_count=10), max_components=50)
    for covariance in COVARIANCES:
        shape = covariances_shape(covariance, 50, 6)
        covariances = np.ones(shape) if covariance in ("spherical", "diag") else np.broadcast_to(np.eye(6), shape)
        mixture = Mixture(np.full(50, 1 / 50), np.zeros((50, 6)), covariances, covariance)
        blob = pack_report(Report(3, mixture, Budget(params=1), 10, tuple(range(10))), "<f8")
        assert check_report(blob, expected).mixture.covariance == covariance
    assert expected.max_bytes < len(blob) + 1024


def damaged(data: bytes, others: list[bytes], generator: np.random.Generator) -> bytes:
    """Flip, cut, splice or invent bytes, or change the header's text and keep its length right."""
    data, kind = bytearray(data), generator.integers(6)
    head = 8 + int.from_bytes(data[:8], "little")
    if kind == 0:  # flip bytes anywhere
        for position in generator.integers(len(data), size=generator.integers(1, 4)):
            data[position] = generator.integers(256)
    elif kind == 1:  # flip bytes of the header, where there is most to break
        for position in generator.integers(head, size=generator.integers(1, 4)):
            data[position] = generator.choice(list(b'0123456789"{}[],:-eEFI\\ '))
    elif kind == 2:  # cut
        data = data[: generator.integers(len(data) + 1)]
    elif kind == 3:  # the head of one and the data of another
        data[head:] = others[generator.integers(len(others))][head:]
    elif kind == 4:  # take out or double a part of the header
        text = data[8:head]
        begin, end = sorted(generator.integers(len(text) + 1, size=2).tolist())
        text = text[:begin] + text[end:] if generator.integers(2) else text[:end] + text[begin:]
        data = bytearray(len(text).to_bytes(8, "little") + text + data[head:])
    else:  # noise
        data = bytearray(generator.bytes(int(generator.integers(200))))
    return bytes(data)


def fuzz(reports: dict[str, Report], space: FeatureSpace, tries: int) -> dict[bool, int]:
    generator = np.random.default_rng(0)
    uploads = [pack_report(report, precision) for report in reports.values() for precision in ("<f2", "<f8")]
    expected, outcomes = Expected.of(space, 3), {True: 0, False: 0}
    for _ in range(tries):
        upload = damaged(uploads[generator.integers(len(uploads))], uploads, generator)
        try:
            report = check_report(upload, expected)
        except ReportRejected:
            outcomes[False] += 1
        else:
            outcomes[True] += 1
            assert np.isfinite(report.mixture.means).all()
            assert report.mixture.weights.min() >= 0
            assert encode(load(upload)) == upload
    return outcomes


def test_a_hundred_thousand_damaged_uploads_are_accepted_or_rejected(
    reports: dict[str, Report], space: FeatureSpace
) -> None:
    """Whatever the bytes, the check ends in a report or a rejection; seeded, so that a failure repeats."""
    outcomes = fuzz(reports, space, DAMAGED)
    assert outcomes[False] > 50_000
    assert outcomes[True] > 1_000  # some damage is harmless, e.g. the last bit of a mean
    held(
        "A blob is a report or a rejection",
        "damaged headers and data, bombs, duplicates, other orders, foreign types, fields of other devices",
        f"{DAMAGED:,} damaged blobs, {WRONG:,} well-formed ones with wrong fields",
        "accepted or rejected",
    )


def test_field_by_field_damage_is_accepted_or_rejected(reports: dict[str, Report], space: FeatureSpace) -> None:
    """Blobs that are well formed and hold wrong arrays: another field's, another shape, another type, odd numbers."""
    generator = np.random.default_rng(1)
    uploads = [load(pack_report(report, precision)) for report in reports.values() for precision in ("<f2", "<f8")]
    odd = [np.nan, np.inf, -np.inf, -1.0, 0.0, 1e300, 2.0**63]
    outcomes = {True: 0, False: 0}
    with np.errstate(all="ignore"):
        for _ in range(WRONG):
            upload = dict(uploads[generator.integers(len(uploads))])
            name = sorted(upload)[generator.integers(len(upload))]
            kind = generator.integers(4)
            if kind == 0:
                upload[name] = uploads[generator.integers(len(uploads))][
                    sorted(upload)[generator.integers(len(upload))]
                ]
            elif kind == 1:
                upload[name] = np.resize(upload[name], generator.integers(0, 5, size=generator.integers(0, 4)))
            elif kind == 2:
                upload[name] = upload[name].astype(["<f2", "<f4", "<f8", "<i8", "<i4", "<u8"][generator.integers(6)])
            else:
                values = upload[name] = upload[name].astype("<f8").copy()
                values.reshape(-1)[generator.integers(values.size)] = odd[generator.integers(len(odd))]
            try:
                report = check_report(encode(upload), Expected.of(space, 3))
            except ReportRejected:
                outcomes[False] += 1
            else:
                outcomes[True] += 1
                assert np.isfinite(report.mixture.means).all()
                assert report.mixture.weights.min() >= 0
    assert min(outcomes.values()) > 200


@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda text: blob(text, bytes(16))))
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes_are_rejected(upload: bytes) -> None:
    with pytest.raises(ReportRejected):
        check_report(upload, Expected(0, 6, 5.0, 1.0))


def test_memory_stays_bounded(reports: dict[str, Report], space: FeatureSpace) -> None:
    expected = Expected.of(space, 3)
    genuine = load(pack_report(reports["full"]))
    uploads = [
        blob('{"covariances":' + entry("F64", "[999999999,1000,1000]", 0, 7999999992000000) + "}", bytes(100)),
        encode({**genuine, "covariances": np.zeros(6_000_000)}),
        (2**62).to_bytes(8, "little") + bytes(1000),
        encode({**genuine, "weights": np.full(1024, 1 / 1024)}),
    ]
    for upload in uploads:
        tracemalloc.start()
        with pytest.raises(ReportRejected):
            check_report(upload, expected)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2_000_000
    held(
        "Reading a blob takes bounded memory",
        "arrays of petabytes in a header, of 48 MB, a length of 2^62, 1,024 weights to 4 components",
        f"{len(uploads)} blobs",
        "rejected, below 2 MB",
    )
