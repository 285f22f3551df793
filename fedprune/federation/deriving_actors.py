"""Workers that derive models all over a Ray cluster, and share what they are derived from.

What models are derived from, the base and the evidence, goes once into Ray's object store, after the evidence was read:
of a node's workers each has the base for itself, and all read the same images and scores. Workers are actors and not
plain tasks: Ray ends a task's process after a second without work, and with it what it has loaded and computed.

Flower's actors, which do the devices' work, hold all CPUs of the cluster. Deriving shares them with that work as it
does on one machine, so its workers ask Ray for none and are placed here: on a node as many as it has of Flower's.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from concurrent.futures import wait
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import torch

from fedprune.core.discovery import import_plugins
from fedprune.core.errors import FedpruneError, require
from fedprune.core.text import describe
from fedprune.federation.deriving import DerivingPool, WorkerEnded
from fedprune.federation.logs import join_log
from fedprune.protocol.deriving import Deriver, Outcome, Task, attempt

LOOK = 1.0  # seconds between looks whether Ray is still there


class DerivingActor:
    """Derives models in a process of the cluster.

    Args:
        shared: Ray's reference to the derivers by role, in a list, so that it is followed here: it may name plug-ins.
        threads: For torch.
    """

    def __init__(self, shared: list[Any], threads: int) -> None:
        self._shared = shared
        torch.set_num_threads(threads)
        join_log()

    @cached_property
    def _derivers(self) -> Mapping[str, Deriver]:
        import_plugins()
        derivers: Mapping[str, Deriver] = require("ray", "ray").get(self._shared[0])
        return derivers

    def derive(self, task: Task) -> Outcome:
        """Carry out a task."""
        return attempt(self._derivers[task.role], task)


@dataclass(frozen=True, eq=False)
class ActorWorker:
    """An actor, and the node where it was placed."""

    pool: "DerivingActors"
    actor: Any
    node: str

    def derive(self, task: Task) -> Outcome:
        """Carry out a task.

        Raises:
            WorkerEnded: the actor has ended, or its node.
            FedpruneError: there is no outcome, for a reason that is no device's affair.
        """
        ray = self.pool.ray
        try:
            outcome: Outcome = _result(ray, self.actor.derive.remote(task))
        except ray.exceptions.RayTaskError as error:
            raise FedpruneError(describe(error.cause)) from error
        except ray.exceptions.RayError as error:
            raise WorkerEnded(describe(error)) from error
        return outcome

    def end(self) -> None:
        """End the actor, if it has not ended."""
        self.pool.workers.discard(self)
        if self.pool.ray.is_initialized():  # or Ray would start again to end what ended with it
            self.pool.ray.kill(self.actor)


def _result(ray: Any, reference: Any) -> Any:
    """Return what an actor answers; `ray.get` would wait for ever once Ray has been shut down, as Ctrl-C does.

    Raises:
        WorkerEnded: Ray was shut down.
    """
    future = reference.future()
    while not wait([future], timeout=LOOK).done:
        if not ray.is_initialized():
            raise WorkerEnded("Ray was shut down.")
    return future.result()


class DerivingActors(DerivingPool):
    """Derives on all nodes of the Ray cluster that this process has joined.

    Args:
        derivers: Who derives, by role; they are sent when the first task comes.
        num_cpus: CPUs of a node for each worker there.
        num_gpus: GPUs of a node for each worker there.
    """

    def __init__(self, derivers: Mapping[str, Deriver], num_cpus: float, num_gpus: float = 0.0) -> None:
        self.ray = require("ray", "ray")
        self.workers: set[ActorWorker] = set()
        self._derivers, self._num_cpus, self._num_gpus = derivers, num_cpus, num_gpus
        self._lock, self._ended = Lock(), False
        super().__init__(max(1, sum(self._places().values())))

    def start(self) -> ActorWorker:
        """Start an actor; where it cannot, on the next node: Ray takes a while to know that one has died.

        Raises:
            FedpruneError: it cannot be started anywhere, or `end` was called, or this process has left the cluster.
        """
        tried: dict[str, str] = {}
        while worker := self._start_except_on(tried):
            try:
                _result(self.ray, worker.actor.__ray_ready__.remote())
                return worker
            except (WorkerEnded, self.ray.exceptions.RayError) as error:
                worker.end()
                tried[worker.node] = describe(error)
        raise FedpruneError(f"No node of the Ray cluster starts what derives models: {'; '.join(tried.values())}")

    def _start_except_on(self, tried: Collection[str]) -> ActorWorker | None:
        """Ask for an actor on the node that has most places left, none of `tried`; None where there are no others."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        with self._lock:
            if self._ended or not self.ray.is_initialized():
                raise FedpruneError("The workers that derive models have been ended. Start again.")
            places = {node: count for node, count in self._places().items() if node not in tried}
            if not places:
                return None
            taken = Counter(worker.node for worker in self.workers)
            node = max(places, key=lambda name: (places[name] - taken[name], name))
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            actor = self.ray.remote(DerivingActor).options(num_cpus=0, num_gpus=0, scheduling_strategy=there)
            worker = ActorWorker(self, actor.remote([self._shared], torch.get_num_threads()), node)
            self.workers.add(worker)
            return worker

    def end(self) -> None:
        """End all actors."""
        with self._lock:
            self._ended = True
        for worker in list(self.workers):
            worker.end()

    @cached_property
    def _shared(self) -> Any:
        return self.ray.put(self._derivers)

    def _places(self) -> dict[str, int]:
        """Return for each node that is alive how many workers are to be there: as many as Flower has actors there."""
        return {node["NodeID"]: self._room(node["Resources"]) for node in self.ray.nodes() if node["Alive"]}

    def _room(self, resources: Mapping[str, float]) -> int:
        asked = {"CPU": self._num_cpus, "GPU": self._num_gpus}
        return min(int(resources.get(kind, 0) / amount) for kind, amount in asked.items() if amount)
