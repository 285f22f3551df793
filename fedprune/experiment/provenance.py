"""What a run was made from, by content: the files that its options read, their code, the data set, the base.

A configuration names things; what stands behind a name may change. So a run's folder keeps hashes, and whoever comes
back to the folder compares: a record, or the rows of a run that was cut off, count only for what they were made from.
"""

import ast
import dataclasses
import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import fedprune
from fedprune.core.content import file_hashes
from fedprune.core.errors import DataError, FedpruneError
from fedprune.core.files import read_json, write_json
from fedprune.core.hashing import content_hash
from fedprune.core.kinds import KINDS
from fedprune.experiment.config import RunConfig

FILE = "provenance.json"
UNCHANGING = ("engine",)  # options that change no result
Hashes = Mapping[str, str]  # what -> hash of its content, or a version


def provenance(config: RunConfig, known: dict[Any, dict[str, str]] | None = None) -> dict[str, str]:
    """Return the hashes of all files that the run's options read and of the options' code, and our version.

    Cheap when nothing has changed: files at rest are not read again.

    Args:
        config: The run's configuration.
        known: What has been found of options a moment ago, for many runs that share them; it is filled.

    Raises:
        FedpruneError: a file is missing.
    """
    found = {"the version of fedprune": fedprune.__version__}
    for kind in KINDS:
        option = getattr(config, kind, None)
        if option is None or kind in UNCHANGING:
            continue
        if known is None:
            found |= _of_option(kind, option)
            continue
        if option not in known:
            known[option] = _of_option(kind, option)
        found |= known[option]
    return found


def write_provenance(folder: Path, hashes: Hashes) -> None:
    """Keep hashes in a run's folder."""
    write_json(folder / FILE, dict(hashes))


def changes_since(folder: Path, config: RunConfig, known: dict[Any, dict[str, str]]) -> list[str]:
    """The same as `changes` for many runs; what cannot be read any more counts as it was."""
    try:
        return changes(folder, provenance(config, known))
    except FedpruneError:
        return []


def changes(folder: Path, now: Hashes) -> list[str]:
    """Name what a run's folder was made from that is different now; nothing where the folder has no hashes."""
    try:
        kept = read_json(folder / FILE)
    except (OSError, DataError):
        return []
    if not isinstance(kept, dict):
        return []
    return [what for what in kept if what in now and kept[what] != now[what]] + [
        what for what in now if what.startswith("the files of") and what not in kept
    ]


def run_folder(config: RunConfig, now: Hashes, fresh: bool = False) -> Path:
    """Return the folder of the run: the one that was made from what is there now, or a new one.

    Args:
        config: The run's configuration.
        now: What there is now.
        fresh: Whether to take a new folder where all that there are were made from something else.

    Raises:
        FedpruneError: the run's folder was made from something else.
    """
    folders = folders_of(config)
    changed: list[str] = []
    for folder in reversed(folders):
        changed = changes(folder, now)
        if not changed:
            return folder
    if not folders:
        return config.folder
    if fresh:
        return _next(folders, config.folder)
    raise FedpruneError(changed_sentence(folders[-1], changed))


def folders_of(config: RunConfig) -> list[Path]:
    """Return the folders that hold this configuration's runs, the oldest first."""
    first = config.folder
    later = {int(path.suffix[1:]): path for path in first.parent.glob(f"{first.name}.*") if path.suffix[1:].isdigit()}
    return [path for path in (first, *(later[number] for number in sorted(later))) if path.is_dir()]


def newest_folder(config: RunConfig) -> Path:
    """Return the newest folder of this configuration's runs; where there is none, the one that it would get."""
    return (folders_of(config) or [config.folder])[-1]


def _next(folders: Sequence[Path], first: Path) -> Path:
    numbers = [int(path.name.removeprefix(f"{first.name}.")) for path in folders if path.name != first.name]
    return first.with_name(f"{first.name}.{max(numbers, default=1) + 1}")


def changed_sentence(folder: Path, changed: Sequence[str]) -> str:
    """Say that a run was made from something else."""
    verb = "is" if len(changed) == 1 and not changed[0].startswith(("the files", "the images")) else "are"
    return (
        f"{' and '.join(changed)} {verb} not what the run in {folder} was made from. Put back what was there, or add "
        "--force to run afresh in a new folder."
    )


def _of_option(kind: str, option: Any) -> dict[str, str]:
    name = f"{kind}={option.name}"
    found = {f"the code of {name}": _code_hash(type(option))}
    if files := sorted(_files(option)):
        found[f"the files of {name}"] = _files_hash(files)
    return found


def _files(option: Any) -> Iterator[Path]:
    """Yield the files that an option and the options inside it read: what its method `files` names."""
    if hasattr(option, "files"):
        yield from option.files()
    for each in dataclasses.fields(option):
        value = getattr(option, each.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from _files(value)


def _files_hash(paths: Sequence[Path]) -> str:
    absolute = [os.path.abspath(path) for path in paths]
    root = os.path.commonpath([os.path.dirname(path) for path in absolute])
    names = [os.path.relpath(path, root) for path in absolute]
    return content_hash(names, file_hashes(paths))


def _code_hash(option: type) -> str:
    """Hash the code of the file that defines an option, and of the files of the classes it derives from."""
    files = {inspect.getsourcefile(each) for each in option.__mro__ if each.__module__ not in ("builtins", "abc")}
    return content_hash([_code(Path(file), os.stat(file).st_mtime_ns) for file in sorted(filter(None, files))])


@cache
def _code(path: Path, _touched: int) -> str:
    """Return a file's code without comments and docstrings, which change no result."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
