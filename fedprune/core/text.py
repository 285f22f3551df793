"""Text that somebody else wrote, made safe to print and to keep: a device may send anything."""

import unicodedata

MAX_REASON = 300  # letters of a reason


def printable(text: str) -> str:
    """Return `text` without control characters: escape codes and marks that turn a line round do not reach a screen."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)


def csv_text(value: object) -> object:
    """Return a cell's value so that no spreadsheet takes text for a formula."""
    if not isinstance(value, str):
        return value
    return f"'{printable(value)}" if value.startswith(("=", "@", "\t", "\r")) else printable(value)


def describe(value: object) -> str:
    """Return anything as one short printable line in Unicode's composed form."""
    text = f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else str(value)
    text = unicodedata.normalize("NFC", text[: 4 * MAX_REASON])
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    line = " ".join(line.split())
    return line if len(line) <= MAX_REASON else line[: MAX_REASON - 3] + "..."
