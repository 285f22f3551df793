"""Server and devices in one place, as only research has them; whatever bounds a result from above comes from here."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np

from fedprune.core.errors import DataError
from fedprune.core.random import stream
from fedprune.data.images import ImageSet, IntArray, Pixels
from fedprune.devices.clock import Clock, NoClock
from fedprune.mixture.mixture import FloatArray
from fedprune.protocol.deriving import EDGE, UPPER_MARK, RecoveryImages
from fedprune.protocol.device import make_report
from fedprune.protocol.kept import Rows, reports_of
from fedprune.protocol.observer import Observer
from fedprune.protocol.private import LocalData, PrivateShard, open_local
from fedprune.protocol.public import PublicWorld
from fedprune.protocol.round import Round
from fedprune.protocol.row import DeviceRow, first_row
from fedprune.protocol.server import Server, ServerOptions
from fedprune.protocol.setup import Setup
from fedprune.proxy.selector import PrivateView


class AllImages(ImageSet):
    """All training images of a simulation, the pool first, so that a pool image has the index that servers know."""

    def __init__(self, images: ImageSet, pool: IntArray) -> None:
        self.images = images
        self.order = np.concatenate([pool, np.setdiff1d(np.arange(len(images)), pool)])
        self.labels = images.labels[self.order]
        self._place = np.argsort(self.order)

    def read(self, indices: IntArray) -> Pixels:
        """Return the images at `indices`."""
        return self.images.read(self.order[indices])

    def places_of(self, indices: IntArray) -> IntArray:
        """Return where the images stand that the data set has at `indices`."""
        return self._place[indices]


class Simulation:
    """One run's server and devices side by side.

    A server that it hands out is built from the public world alone. What only a simulation can know has names that
    say so: the true numbers in its rows, private views, upper marks.
    """

    def __init__(self, local: LocalData) -> None:
        self.local = local
        self.setup: Setup = local.setup

    @cached_property
    def public(self) -> PublicWorld:
        """What the server knows."""
        return PublicWorld.of(self.setup, self.local.public, self.local.base)

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Hashes of what server and devices compute with."""
        return {
            "the images of the data set": self.local.dataset.fingerprint,
            "the partition": self.local.partition.fingerprint,
            "the base": self.local.base.fingerprint,
        }

    @property
    def devices(self) -> list[int]:
        """The devices' numbers, in rising order."""
        return [shard.device for shard in self.local.partition.shards]

    def shard(self, device: int) -> PrivateShard:
        """Return what one device holds."""
        return self.local.shard(device)

    def server(self, options: ServerOptions, observer: Observer | None = None) -> Server:
        """Return a run's server, which has no report yet; one that sees private data where its selector is a bound.

        Args:
            options: The server's.
            observer: Who may keep the reports in its place.
        """
        reports = reports_of(observer or Observer(), self.public)
        if options.selector.reads_private:
            return UpperMarkServer(self.public, options, reports, simulation=self)
        return Server(self.public, options, reports)

    def upper_mark(self, server: Server) -> "UpperMarkServer":
        """Return the server that derives upper marks from the reports that `server` has."""
        if isinstance(server, UpperMarkServer):
            return server
        return UpperMarkServer(self.public, server.options, server.reports, simulation=self)

    def round(self, options: ServerOptions, observer: Observer, clock: Clock | None = None) -> Round:
        """Return a run's round, ready to begin."""
        server = self.server(options, observer)
        return Round(
            server,
            Rows({row.device: row for row in self.true_rows()}, observer),
            observer,
            self.setup.personal,
            (clock or NoClock()).timeline(len(self.devices), self.setup.seed),
            self.upper_mark(server) if options.oracle else None,
            self.blueprint(options),
        )

    def blueprint(self, options: ServerOptions) -> str:
        """Return what `open_servers` needs, as JSON: names and hashes, no images."""
        fingerprints = dict(self.fingerprints)
        return json.dumps({"setup": self.setup.to_json(), "options": options.to_dict(), "fingerprints": fingerprints})

    def true_rows(self) -> list[DeviceRow]:
        """Return the rows that a run begins with, what only a simulation knows of the devices filled in."""
        rows = []
        for shard, budget in zip(self.local.partition.shards, self.local.budgets, strict=True):
            row = first_row(shard.device, self.public.base.shape)
            row.limit_to(budget)
            row.task, row.classes = shard.task, len(shard.classes)
            row.train_images, row.test_images = len(shard.train), len(shard.test)
            row.shared_test_images = self.local.partition.shared_test(shard.device)
            rows.append(row)
        return rows

    def report_to(self, server: Server, device: int) -> None:
        """Let a device make its report as in the run, and hand it to `server`, unless its report is there."""
        if device not in server.reports:
            server.receive(device, make_report(self.shard(device), self.public.space).report)

    @cached_property
    def all_images(self) -> AllImages:
        """All training images, private ones too."""
        return AllImages(self.local.dataset.train, self.local.partition.pool)

    def own_images(self, device: int) -> IntArray:
        """Return the indices of a device's own training images in `all_images`."""
        shards = {shard.device: shard for shard in self.local.partition.shards}
        return self.all_images.places_of(shards[device].train)

    def points_of(self, indices: IntArray) -> FloatArray:
        """Return images of `all_images` in the space of the reports (images, dimensions)."""
        world = self.public
        return world.space.project(world.extractor.extract(self.all_images, indices, world.precision, world.compute))


@dataclass
class UpperMarkServer(Server):
    """A server that sees what no server may see, every device's images: for what bounds a result from above."""

    simulation: Simulation = field(kw_only=True)

    @property
    def images(self) -> ImageSet:
        """All training images, the pool first."""
        return self.simulation.all_images

    def private_view(self, device: int) -> PrivateView:
        """Show a selector the device's own images and labels."""
        shard, world = self.simulation.shard(device), self.world
        return PrivateView(
            indices=self.simulation.own_images(device),
            labels=shard.train.labels,
            points=world.space.project(shard.train_features()),
            pool_labels=world.images.labels,
        )

    def oracle_proxy(self, device: int, size: int | None = None) -> IntArray:
        """Return as many of the device's own training images as a proxy set has, or as asked."""
        own = self.simulation.own_images(device)
        order = stream(self.world.seed, "oracle", device).permutation(len(own))
        return np.sort(own[order[: size or self.options.proxy_size]])

    def oracle_recovery_images(self, device: int) -> RecoveryImages:
        """Return what an upper mark's recovery reads beside these images."""
        size = self.options.recovery_size
        learn = None if size is None else self.oracle_proxy(device, size)
        return RecoveryImages(learn, self.choose_validation(device) if self.options.recovery.validates else None)

    def prepare_upper_marks(self, devices: Sequence[int]) -> None:
        """Compute the evidence that these devices' upper marks need, in one pass."""
        self.prepare([self.oracle_proxy(device) for device in devices])


@lru_cache(maxsize=2)
def open_simulation(setup: Setup) -> Simulation:
    """Return this process's simulation for `setup`; the last two stay loaded."""
    return Simulation(open_local(setup))


def open_servers(blueprint: str) -> dict[str, Server]:
    """Return servers that derive what those of a round in another process do, by the role of their models.

    Args:
        blueprint: The round's.

    Raises:
        DataError: what is found under the same names here is something else.
    """
    plain = json.loads(blueprint)
    simulation = open_simulation(Setup.from_json(plain["setup"]))
    if dict(simulation.fingerprints) != plain["fingerprints"]:
        raise DataError("The data or the base have changed since the run began. Start it again.")
    server = simulation.server(ServerOptions.from_dict(plain["options"]))
    return {EDGE: server, UPPER_MARK: simulation.upper_mark(server)}
