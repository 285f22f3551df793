"""What of a data set is public: all that the server, and whoever trains a base, ever sees of it."""

from dataclasses import dataclass

from fedprune.core.hashing import content_hash
from fedprune.data.images import Dataset, ImageSet, Partition


@dataclass(frozen=True)
class PublicImages:
    """The public pool and the public validation cut, from which no private image can be reached.

    Attributes:
        name: Of the data set.
        pool: The server's labelled images, which proxy sets are chosen from.
        validation: Labelled images for every choice of settings.
        classes: Class names; a label is an index into them.
        fingerprint: Hash of the content; it names what is computed from these images and kept.
    """

    name: str
    pool: ImageSet
    validation: ImageSet
    classes: tuple[str, ...]
    fingerprint: str


def cut_public(dataset: Dataset, partition: Partition) -> PublicImages:
    """Cut the public images out of a data set; they keep their order."""
    return PublicImages(
        dataset.name,
        dataset.train.take(partition.pool),
        dataset.train.take(partition.validation),
        dataset.classes,
        content_hash("public", dataset.fingerprint, partition.pool, partition.validation),
    )
