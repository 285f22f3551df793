"""Text that somebody else wrote, made safe to print and to keep: a device may send anything."""

import unicodedata

MAX_REASON = 300  # letters of a reason


def describe(value: object) -> str:
    """Return anything as one short printable line in Unicode's composed form."""
    text = f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else str(value)
    text = unicodedata.normalize("NFC", text[: 4 * MAX_REASON])
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    line = " ".join(line.split())
    return line if len(line) <= MAX_REASON else line[: MAX_REASON - 3] + "..."
