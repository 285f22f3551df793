"""Text that somebody else wrote, made safe to print and to keep: a device may send anything."""

MAX_REASON = 300  # letters of a reason


def describe(value: object) -> str:
    """Return anything as one short printable line."""
    text = f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else str(value)
    line = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * MAX_REASON])
    line = " ".join(line.split())
    return line if len(line) <= MAX_REASON else line[: MAX_REASON - 3] + "..."
