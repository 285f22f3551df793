"""One job of a Hydra launcher: runs the cell that the sweep's plan has under a name, in a child process."""

import sys
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from fedprune.protocol.observer import Observer
from fedprune.study.launchers import read_cell
from fedprune.study.worker import Worker


@dataclass
class Job:
    """What a job is told.

    Attributes:
        plan: The sweep's plan, a JSON file of configurations.
        cell: Which of them.
    """

    plan: str = MISSING
    cell: str = MISSING


ConfigStore.instance().store(name="job", node=Job)


@hydra.main(version_base="1.3", config_path=None, config_name="job")
def main(job: Job) -> str:
    """Run the cell; its folder says how it went, so a failure does not stop the launcher's other jobs."""
    cell = read_cell(Path(job.plan), job.cell)
    with Worker(cell.folder / "log.txt") as worker:
        outcome = worker.run(cell, Observer())
    print(f"{cell.config.title()}: {outcome.status} {outcome.reason}".rstrip(), file=sys.stderr)
    return outcome.status


if __name__ == "__main__":
    main()
