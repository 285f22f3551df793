"""What a device can afford: the budget that it reports beside its mixture."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """Upper limits for an edge model; `None` is no limit, at least one limit is set.

    Attributes:
        params: Parameters.
        macs: Multiply-accumulate operations for one image.
        memory: Bytes of float32 weights plus peak activations for one image.
        latency: Seconds for one image under the device profile's latency model.
    """

    params: int | None = None
    macs: int | None = None
    memory: int | None = None
    latency: float | None = None
