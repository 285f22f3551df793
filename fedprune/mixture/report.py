"""What a device uploads, and the one check through which every upload passes."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedprune.core.errors import ReportRejected
from fedprune.devices.budget import Budget
from fedprune.mixture.fit import MAX_COMPONENTS
from fedprune.mixture.mixture import COVARIANCES, LOWEST_FLOOR, FeatureSpace, FloatArray, Mixture, covariances_shape
from fedprune.mixture.wire import MAX_HEADER, decode, encode

Array = NDArray[Any]
Arrays = Mapping[str, Array]

SCHEMA = 2
MAX_BYTES = 16 * 2**20
_SCALARS = ("schema", "device", "images", "covariance")
_MIXTURE = ("weights", "means", "covariances")
_LIMITS = tuple(limit.name for limit in dataclasses.fields(Budget))


@dataclass(frozen=True)
class Report:
    """A device's accepted report.

    Attributes:
        device: Number of the device in the partition.
        mixture: What the privacy mechanism released.
        budget: What the device can afford.
        images: How many private images the device says it has.
        classes: The device's classes, where it tells them.
    """

    device: int
    mixture: Mixture
    budget: Budget
    images: int
    classes: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Expected:
    """What the server accepts from one device; all of it is public or follows from the configuration.

    Attributes:
        device: The device that was asked.
        dimensions: d of the space.
        radius: The space's radius; means may lie `reach` times as far.
        variance: The space's variance; variances lie between `floor` and `ceiling` times it.
        class_count: Classes of the data set where devices tell theirs, else None, and a class list is refused.
        covariances: Covariance types that are accepted.
        max_components: Largest K.
        max_images: Largest claim of private images.
        max_condition: Largest condition number of a full or tied covariance.
        limits: Largest believable budget.
        tolerance: Relative slack for what rounding to the wire's precision may do.
    """

    device: int
    dimensions: int
    radius: float
    variance: float
    class_count: int | None = None
    covariances: tuple[str, ...] = COVARIANCES
    max_components: int = MAX_COMPONENTS
    max_images: int = 10_000_000
    reach: float = 4.0
    floor: float = LOWEST_FLOOR
    ceiling: float = 1e2
    max_condition: float = 1e8
    limits: Budget = field(default_factory=lambda: Budget(params=10**11, macs=10**14, memory=10**13, latency=1e4))
    tolerance: float = 1e-3

    @property
    def max_bytes(self) -> int:
        """Bytes of the largest report that can be accepted."""
        largest = max(
            math.prod(covariances_shape(kind, self.max_components, self.dimensions)) for kind in self.covariances
        )
        values = len(_SCALARS) + len(_LIMITS) + (self.class_count or 0) + largest
        return min(MAX_BYTES, 8 * (1 + values + self.max_components * (1 + self.dimensions)) + MAX_HEADER)

    @staticmethod
    def of(
        space: FeatureSpace, device: int, class_count: int | None = None, max_components: int = MAX_COMPONENTS
    ) -> "Expected":
        """Expect a report of `device` in `space`."""
        return Expected(
            device, space.basis.shape[1], space.radius, space.variance, class_count, max_components=max_components
        )


def pack_report(report: Report, precision: str = "<f4") -> bytes:
    """Write a report as one safetensors blob; the mixture in `precision` (`<f2`, `<f4` or `<f8`), the rest exact."""
    limits = [np.inf if limit is None else float(limit) for limit in dataclasses.astuple(report.budget)]
    arrays: dict[str, NDArray[Any]] = {
        "schema": np.array(SCHEMA, dtype="<i8"),
        "device": np.array(report.device, dtype="<i8"),
        "images": np.array(report.images, dtype="<i8"),
        "covariance": np.array(COVARIANCES.index(report.mixture.covariance), dtype="<i8"),
        "budget": np.array(limits, dtype="<f8"),
        **{name: getattr(report.mixture, name).astype(precision) for name in _MIXTURE},
    }
    if report.classes is not None:
        arrays["classes"] = np.array(report.classes, dtype="<i8")
    return encode(arrays)


def check_report(blob: bytes, expected: Expected) -> Report:
    """Turn whatever a device sent into a report, or refuse it; memory is bounded by `expected`.

    Lengths are checked before anything is parsed, then the blob's form, names, schema, types, shapes, finiteness,
    weights, means, variances, counts and budget. Whether a well-formed report is *true* is not checked: a liar
    spoils its own edge model and no other.

    Raises:
        ReportRejected: and nothing else; the message is the reason and starts with the field's name.
    """
    upload = decode(blob, expected.max_bytes)
    _check_names(upload, expected)
    scalars = {name: _scalar(name, upload[name]) for name in _SCALARS}
    if scalars["schema"] != SCHEMA:
        raise ReportRejected(f"schema: {scalars['schema']} instead of {SCHEMA}.")
    if scalars["device"] != expected.device:
        raise ReportRejected(f"device: claims to be {scalars['device']} but {expected.device} was asked.")
    if not 1 <= scalars["images"] <= expected.max_images:
        raise ReportRejected(f"images: {scalars['images']} is not between 1 and {expected.max_images}.")
    if not 0 <= scalars["covariance"] < len(COVARIANCES):
        raise ReportRejected(f"covariance: there is no type {scalars['covariance']}.")
    covariance = COVARIANCES[scalars["covariance"]]
    if covariance not in expected.covariances:
        raise ReportRejected(f"covariance: {covariance} is not accepted here.")
    mixture = _check_mixture(upload, covariance, expected)
    budget = _check_budget(upload["budget"], expected.limits)
    return Report(scalars["device"], mixture, budget, scalars["images"], _check_classes(upload, expected))


def _check_names(upload: Arrays, expected: Expected) -> None:
    wanted = {*_SCALARS, *_MIXTURE, "budget"} | (set() if expected.class_count is None else {"classes"})
    if set(upload) != wanted:
        raise ReportRejected(f"upload: the fields are not exactly {', '.join(sorted(wanted))}.")


def _scalar(name: str, value: Array) -> int:
    if value.shape != () or value.dtype != np.int64:
        raise ReportRejected(f"{name}: not one whole number.")
    return int(value)


def _floats(name: str, values: Array) -> FloatArray:
    if values.dtype != np.float64:
        raise ReportRejected(f"{name}: not floating-point numbers.")
    return values.astype(np.float64, copy=False)


def _check_mixture(upload: Arrays, covariance: str, expected: Expected) -> Mixture:
    weights = _floats("weights", upload["weights"])
    if weights.ndim != 1 or not 1 <= len(weights) <= expected.max_components:
        raise ReportRejected(
            f"weights: shape {weights.shape} is not that of 1 to {expected.max_components} components."
        )
    shapes = {
        "means": (len(weights), expected.dimensions),
        "covariances": covariances_shape(covariance, len(weights), expected.dimensions),
    }
    means, covariances = (_floats(name, upload[name]) for name in shapes)
    for name, values in (("weights", weights), ("means", means), ("covariances", covariances)):
        if name in shapes and values.shape != shapes[name]:
            raise ReportRejected(f"{name}: shape {values.shape} instead of {shapes[name]}.")
        if not np.isfinite(values).all():
            raise ReportRejected(f"{name}: not all finite.")
    if (weights < 0).any() or abs(weights.sum() - 1) > expected.tolerance:
        raise ReportRejected("weights: negative, or their sum is not 1.")
    # Compared by largest coordinate first: squares of huge coordinates would overflow.
    far = expected.reach * expected.radius * (1 + expected.tolerance)
    if np.abs(means).max() > far or np.linalg.norm(means, axis=1).max() > far:
        raise ReportRejected("means: farther out than the public pool allows.")
    return Mixture(weights / weights.sum(), means, _check_covariances(covariances, covariance, expected), covariance)


def _check_covariances(covariances: FloatArray, covariance: str, expected: Expected) -> FloatArray:
    lowest = expected.floor * expected.variance * (1 - expected.tolerance)
    highest = expected.ceiling * expected.variance * (1 + expected.tolerance)
    if np.abs(covariances).max() > highest:
        raise ReportRejected("covariances: larger than the public pool allows.")
    if covariance in ("spherical", "diag"):
        if covariances.min() < lowest:
            raise ReportRejected("covariances: smaller than the floor.")
        return covariances
    transposed = np.swapaxes(covariances, -1, -2)
    if np.abs(covariances - transposed).max() > 1e-6 * max(expected.variance, np.abs(covariances).max()):
        raise ReportRejected("covariances: not symmetric.")
    symmetric = (covariances + transposed) / 2
    try:
        eigenvalues = np.linalg.eigvalsh(symmetric)
        np.linalg.cholesky(symmetric)
    except np.linalg.LinAlgError:
        raise ReportRejected("covariances: not positive definite.") from None
    smallest, largest = eigenvalues.min(axis=-1), eigenvalues.max(axis=-1)
    if smallest.min() < lowest or (largest > expected.max_condition * smallest).any():
        raise ReportRejected("covariances: an eigenvalue is below the floor, or the condition number is too large.")
    return symmetric


def _check_budget(numbers: Array, limits: Budget) -> Budget:
    values = _floats("budget", numbers)
    if values.shape != (len(_LIMITS),) or np.isnan(values).any() or (values <= 0).any():
        raise ReportRejected(f"budget: not {len(_LIMITS)} positive numbers.")
    if np.isinf(values).all():
        raise ReportRejected("budget: no limit is set.")
    budget: dict[str, Any] = {}
    for name, value in zip(_LIMITS, values.tolist(), strict=True):
        highest = getattr(limits, name)
        if np.isfinite(value) and highest is not None and value > highest:
            raise ReportRejected(f"budget: {name} {value:g} is larger than any device here has.")
        budget[name] = None if np.isinf(value) else value if name == "latency" else int(value)
    if 0 in budget.values():
        raise ReportRejected("budget: a limit is below one.")
    return Budget(**budget)


def _check_classes(upload: Arrays, expected: Expected) -> tuple[int, ...] | None:
    if expected.class_count is None:
        return None
    values = upload["classes"]
    if values.ndim != 1 or values.dtype != np.int64 or len(values) == 0:
        raise ReportRejected("classes: not a list of class numbers.")
    if values.min() < 0 or values.max() >= expected.class_count or (np.diff(values) <= 0).any():
        raise ReportRejected("classes: out of range, repeated, or not in rising order.")
    return tuple(values.tolist())
