"""Show what would be read: each class of a data set with its numbers of images, and what was left out.

Settings are those of `fedprune run`: `fedprune data data=image_folder data.root=/path/to/folder`.
"""

import argparse

from fedprune.cli.completion import add_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_settings(parser, "settings, e.g. data=digits")


def run(arguments: argparse.Namespace) -> int:
    """Load the data set and print it."""
    from fedprune.experiment.compose import compose

    config = compose(arguments.overrides)

    import numpy as np  # after settings have been read: these take seconds to import
    from rich.table import Table
    from rich.text import Text

    from fedprune.api.progress import console

    dataset = config.data.load()
    table = Table("class", "name", "training images", "test images")
    counts = [np.bincount(split.labels, minlength=len(dataset.classes)) for split in (dataset.train, dataset.test)]
    for label, name in enumerate(dataset.classes):
        table.add_row(str(label), Text(name), str(counts[0][label]), str(counts[1][label]))
    table.add_section()
    table.add_row("all", "", str(len(dataset.train)), str(len(dataset.test)))
    console.print(table)
    for note in dataset.notes:
        console.print(Text(note))
    return 0
