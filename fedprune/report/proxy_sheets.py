"""The proxy sets on a run's page: images side by side, what they are in words, and how much they rest on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedprune.core.text import printable
from fedprune.experiment.record import Record
from fedprune.report.drawings import contact_sheet
from fedprune.report.scene import Scene

IMAGES = 16  # of each kind that a device shows
NAMED = 8  # classes at most that a text names
FEW = 0.1  # of a proxy set: below this effective sample size it is said in words
EFFECTIVE = "effective_sample_size"


def proxies_of(record: Record, scene: Scene, devices: int, private_images: bool) -> list[dict[str, Any]]:
    """Return what is shown of the first devices that answered: sheets of images with their texts, and diagnostics."""
    answered = record.devices.loc[record.devices["status"].isin(["ok", "refused"]), "device"].tolist()
    return [_proxy(scene, device, private_images) for device in answered[:devices]]


def rests_on_few(record: Record) -> str:
    """Say of how many devices the proxy set rests on few images; nothing where of none or unknown."""
    column = record.devices.get(f"proxy_{EFFECTIVE}")
    size = record.config.proxy_size
    if column is None or not (few := int((column < FEW * size).sum())):
        return ""
    return (
        f"For {few} of {len(column)} devices hardly any public image looks like their own: weighted by how much "
        f"likelier the device's mixture makes it than the pool's, the whole pool counts as fewer than {FEW * size:.0f} "
        f"images, where {size} had to be chosen. Such a proxy set is the nearest that there is, and no sample of what "
        "the device has."
    )


def effective_text(effective: float, size: int) -> str:
    """Say what an effective sample size means for a proxy set of `size` images."""
    text = f"effective sample size {effective:.1f} of {size}"
    return f"{text}: it rests on very few images like the device's own" if effective < FEW * size else text


def _proxy(scene: Scene, device: int, private_images: bool) -> dict[str, Any]:
    proxy, shard, server = scene.proxy(device), scene.shard(device), scene.server
    names = [printable(name) for name in scene.simulation.public.public.classes]
    chosen = scene.some(proxy.indices, IMAGES, "proxy", device)
    nearest = scene.nearest_public(device, IMAGES)
    sheets = [_sheet("proxy set", server.images.read(chosen), server.images.labels[chosen], names, len(proxy.indices))]
    if private_images:
        own = scene.some(np.arange(len(shard.train)), IMAGES, "private", device)
        sheets.append(_sheet("private", shard.train.read(own), shard.train.labels[own], names, len(shard.train)))
    pixels, labels = scene.pool.read(nearest), scene.pool.labels[nearest]
    sheets.append(_sheet("nearest to the reported means", pixels, labels, names, len(nearest)))
    effective = proxy.diagnostics.get(EFFECTIVE)
    rest = {name: value for name, value in proxy.diagnostics.items() if name != EFFECTIVE}
    return {
        "name": scene.tasks()[device],
        "sheets": sheets,
        "own": np.isin(server.images.labels[proxy.indices], shard.classes).mean(),
        "effective": "" if effective is None else effective_text(effective, len(proxy.indices)),
        "diagnostics": {name.replace("_", " "): f"{value:.4g}" for name, value in rest.items()},
    }


def _sheet(kind: str, images: NDArray[np.uint8], labels: NDArray[Any], names: Sequence[str], of: int) -> dict[str, str]:
    return {"kind": kind, "alt": images_text(kind, labels, names, of), "src": contact_sheet(images)}


def images_text(kind: str, labels: NDArray[Any], names: Sequence[str], of: int) -> str:
    """Say what a sheet of images shows: how many of how many, and of which classes, the most frequent first."""
    classes, counts = np.unique(labels, return_counts=True)
    ranked = [f"{names[classes[place]]} ({counts[place]})" for place in np.argsort(-counts, kind="stable")]
    more = f" and {len(ranked) - NAMED} more" if len(ranked) > NAMED else ""
    return f"{kind}: {len(labels)} of {of} images, of the classes {', '.join(ranked[:NAMED])}{more}"
