"""Which rows of a pretrained head know a data set's classes: by WordNet id, by name, or by a file that says so."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

from fedprune.core.errors import ModelError
from fedprune.core.text import describe

ClassMap = Mapping[str, str | int]  # class of the data set -> WordNet id, name or number of a row
WORDNET_ID = re.compile(r"(n\d{8})(?!\d)")


def rows_of(classes: Sequence[str], head: int, class_map: ClassMap | None = None) -> list[int]:
    """Return the row of a head for each class of a data set.

    Rows are known by their number of classes, as timm knows its ImageNet heads. A class is looked for by the WordNet
    id with which its name begins, then by the row's whole name, then by the names that stand between commas; case and
    the signs between words do not count. A data set of as many classes as the head has rows, which are the head's in
    order (see `_in_order`), keeps it as it is.

    Args:
        classes: Names of the data set's classes.
        head: Rows of the pretrained head.
        class_map: Overrides what a class is looked for by.

    Raises:
        ModelError: a class has no row, several, or that of another class; the message names it.
    """
    class_map = class_map or {}
    if not head:
        raise ModelError("The pretrained weights have no head to match classes with. Choose base.head=probe.")
    if unknown := sorted(set(class_map) - set(classes)):
        raise ModelError(f"The class map names {unknown[0]!r}, which is no class of the data set. Correct the name.")
    subset = _subset(head)
    names = _Names(ImageNetInfo(subset)) if subset else None
    asked = [class_map.get(name, name) for name in classes]
    if head == len(classes) and not class_map and _in_order(classes, names):
        return list(range(head))
    rows = [_row(name, wanted, head, names) for name, wanted in zip(classes, asked, strict=True)]
    taken: dict[int, str] = {}
    for name, row in zip(classes, rows, strict=True):
        if row in taken:
            raise ModelError(
                f"The classes {taken[row]!r} and {name!r} are both row {row} of the pretrained head. "
                "Name another row for one of them in base.class_map, or choose base.head=probe."
            )
        taken[row] = name
    return rows


def are_named(head: int) -> bool:
    """Say whether anybody knows what the rows of a head of that size are called."""
    return _subset(head) is not None


def read_class_map(path: Path) -> ClassMap:
    """Read a JSON object from class names to WordNet ids, names or numbers of rows.

    Raises:
        ModelError: the file cannot be read, or holds something else.
    """
    try:
        values = json.loads(path.expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"The class map {path} cannot be read as JSON: {describe(error)}.") from error
    if not isinstance(values, dict) or any(type(value) not in (str, int) for value in values.values()):
        raise ModelError(f"The class map {path} must hold one JSON object from class names to names or row numbers.")
    return values


class _Names:
    """What the rows of one of timm's ImageNet heads are called."""

    def __init__(self, info: ImageNetInfo) -> None:
        titles: Any = info.label_descriptions(as_dict=True)
        self.ids = {name: row for row, name in enumerate(titles)}
        self.titles = list(titles.values())
        self.whole: dict[str, list[int]] = defaultdict(list)
        self.parts: dict[str, list[int]] = defaultdict(list)
        for row, title in enumerate(self.titles):
            self.whole[_plain(title)].append(row)
            for part in set(map(_plain, title.split(","))):
                self.parts[part].append(row)

    def find(self, name: str) -> list[int]:
        """Return the rows that `name` may mean."""
        if match := WORDNET_ID.match(name):
            return [self.ids[match[1]]] if match[1] in self.ids else []
        return self.whole.get(_plain(name)) or self.parts.get(_plain(name)) or []


def _row(name: str, wanted: str | int, head: int, names: _Names | None) -> int:
    """Return the one row that is meant."""
    meant = f"The class {name!r}" + (f", mapped to {wanted!r}," if wanted != name else "")
    if isinstance(wanted, int):
        if not 0 <= wanted < head:
            raise ModelError(f"{meant} is no row of the pretrained head, which has rows 0 to {head - 1}.")
        return wanted
    if names is None:
        raise ModelError(
            f"{meant} cannot be matched: nobody knows what the {head} rows of the pretrained head are called. Name "
            "their numbers in base.class_map, or choose base.head=probe, which fits a head to the public pool."
        )
    found = names.find(wanted)
    if len(found) == 1:
        return found[0]
    if found:
        several = "; ".join(f"{row} is {names.titles[row]!r}" for row in found)
        raise ModelError(
            f"{meant} may be several rows of the pretrained head ({several}). Name one in base.class_map, or choose "
            "base.head=probe."
        )
    raise ModelError(
        f"{meant} is no class of the pretrained head. Name a row in base.class_map, or choose base.head=probe, which "
        "fits a head to the public pool."
    )


def _subset(head: int) -> str | None:
    name: str | None = infer_imagenet_subset({"num_classes": head})
    return name


def _in_order(classes: Sequence[str], names: _Names | None) -> bool:
    """Say whether classes, as many as the head has rows, are its rows in order: ImageNet's names have many spellings.

    They are where they are numbers, where nobody knows the rows' names, or where more than half bear their row's name.
    """
    if names is None or all(name == str(place) for place, name in enumerate(classes)):
        return True
    return 2 * sum(place in names.find(name) for place, name in enumerate(classes)) > len(classes)


def _plain(name: str) -> str:
    return " ".join(re.findall(r"\w+", name.replace("_", " ").casefold()))
