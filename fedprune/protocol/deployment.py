"""The server's side of a run on real devices: it has public images of its own, and knows what devices answer."""

from collections.abc import Mapping
from functools import cached_property

from fedprune.core.errors import ConfigError
from fedprune.data.public import PublicImages
from fedprune.devices.clock import Clock, NoClock
from fedprune.protocol.kept import Rows, reports_of
from fedprune.protocol.observer import Observer
from fedprune.protocol.public import PublicWorld
from fedprune.protocol.round import Round
from fedprune.protocol.row import first_row
from fedprune.protocol.server import Server, ServerOptions
from fedprune.protocol.setup import Setup


class Deployment:
    """One run's server, without its devices.

    Args:
        setup: What devices and server agree on; of its data and its partition, the number of devices alone is read.
        images: The server's own images.
    """

    def __init__(self, setup: Setup, images: PublicImages) -> None:
        self.setup = setup
        self.images = images

    @cached_property
    def public(self) -> PublicWorld:
        """What the server knows."""
        return PublicWorld.of(self.setup, self.images)

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Hashes of what the server computes with."""
        return {"the public images": self.images.fingerprint, "the base": self.public.base.fingerprint}

    def round(self, options: ServerOptions, observer: Observer, clock: Clock | None = None) -> Round:
        """Return the run's round, ready to begin; its rows know nothing yet of the devices.

        Raises:
            ConfigError: the options ask for what only a simulation can give.
        """
        if options.oracle:
            raise ConfigError(
                "oracle=true derives models from private images, which this server lacks. Set oracle=false."
            )
        if self.setup.features.learns:
            raise ConfigError(
                "The features chosen are learned from public images, which devices lack. Set features=base."
            )
        if options.selector.reads_private:
            raise ConfigError("The selector reads private images, which this server lacks. Choose another selector.")
        devices = self.setup.partition.devices
        return Round(
            Server(self.public, options, reports_of(observer, self.public)),
            Rows({device: first_row(device, self.public.base.shape) for device in range(devices)}, observer),
            observer,
            self.setup.personal,
            (clock or NoClock()).timeline(devices, self.setup.seed),
        )
