"""A limit on the time of a device that shares its process with devices that come after it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedprune.federation.engine import load_client_app
from fedprune.federation.local import RAISED, failure


class TimeLimitedApp(ClientApp):
    """Answers as the named ClientApp does, or with an error when that takes too long.

    Flower's simulation never ends a ClientApp: one that hangs would hold its actor until the run is over.
    """

    def __init__(self, client_app: str, seconds: float) -> None:
        super().__init__()
        self.client_app = client_app
        self.seconds = seconds

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer `message` within the limit; imports are not counted."""
        app = load_client_app(self.client_app)
        context.node_config["simulated"] = True
        try:
            with _time_limit(self.seconds):
                return app(message, context)
        except _TimeIsUp:
            return failure(message, f"no answer within {self.seconds:g} s", RAISED)


class _TimeIsUp(BaseException):
    """Not an Exception, so that what a ClientApp does about its own errors does not catch it."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Interrupt the block by the alarm signal, which Python knows in its main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, _raise)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _raise(number: int, frame: FrameType | None) -> None:
    raise _TimeIsUp
