"""Plain values written in Hydra's grammar."""

import re
from collections.abc import Mapping
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

NOT_WORDS = ("true", "false", "null", "inf", "nan")


def in_grammar(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Write settings as overrides in Hydra's grammar."""
    return tuple(f"{key}={_write(value)}" for key, value in settings.items())


def quoted(text: str) -> str:
    """Write text in Hydra's grammar, so that it is taken letter by letter."""
    return QuotedString(text=text.replace("${", "\\${"), quote=Quote.single).with_quotes()


def is_word(text: str) -> bool:
    """Say whether Hydra's grammar takes `text` for itself and for nothing else: no number, no truth, no sign."""
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", text) is not None and text.lower() not in NOT_WORDS


def _write(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_write, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_write(item)}" for key, item in value.items()) + "}"
    return quoted(value) if isinstance(value, str) and not is_word(value) else str(value)
