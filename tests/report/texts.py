"""What stands written in a figure, and which words of it are identifiers and no prose."""

import re

from matplotlib.figure import Figure
from matplotlib.text import Text

from fedprune.report.names import NAMES

# Identifiers that are words of prose themselves.
ENGLISH = {"anchored", "digits", "fold", "global", "heal", "paper", "tiny", "votes"}


def texts_of(figure: Figure) -> list[str]:
    """Return all texts of a figure."""
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]


def identifiers_in(text: str) -> set[str]:
    """Return the words of a text that are identifiers."""
    words = set(re.findall(r"\w+", text))
    return {word for word in words if "_" in word} | (words & (NAMES.keys() - ENGLISH))
