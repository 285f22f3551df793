"""Characters of eight scripts, drawn with the fonts that matplotlib ships: a data set that needs no files.

An image is a master (one character in one font, drawn once) under a random linear map, tinted, on a dark noisy
ground. All random values of a data set are drawn when it is made; pixels are computed when they are read, with
additions and multiplications only, so that the same options give the same bytes on every machine.
"""

from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedprune.core.hashing import content_hash
from fedprune.core.random import stream
from fedprune.core.registry import register
from fedprune.data.images import Dataset, DataSource, ImageSet, IntArray, Pixels

SIDE = 32  # of an image, in pixels
MASTER_SIDE = 64  # of a drawn character before it is mapped into an image
MASTER_EM = 40  # font size of a master, in pixels
NOISE_BANK = 1 << 20

SANS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique")
SERIF = ("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic")
MONO = ("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique")
STIX = ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta")
COMPUTER_MODERN = ("cmr10", "cmb10", "cmss10", "cmtt10", "cmti10")


@dataclass(frozen=True)
class Script:
    """Characters that belong together, and the fonts that have all of them."""

    characters: str
    fonts: tuple[str, ...]


# Within a script and between scripts no two characters look alike in every font; close ones are left in.
SCRIPTS = {
    "latin": Script("AEGKMNQRSWabdefghjqt", (*SANS, *SERIF, *MONO, *STIX, *COMPUTER_MODERN)),
    "greek": Script("αβγδεζηθλμξπρστφχψωΞ", (*SANS, *SERIF, *MONO, *STIX)),
    "cyrillic": Script("БГДЖЗИЙЛПУФЦЧШЩЪЫЭЮЯ", (*SANS, *SERIF, *MONO, *STIX)),
    "armenian": Script("ԱԲԳԴԶԷԹԺԻԽԾԿՁՃՄՅՇՋՖՔ", (*SANS, *SERIF, *MONO)),
    "georgian": Script("აბგდეზთკლმოჟრტფღყშჭხ", (*SANS, *SERIF, *MONO)),
    "hebrew": Script("אבגדהזחטילמנסעפצקרשת", SANS),
    "arabic": Script("ابجدرسصطعفقكلمنهويشة", (*SANS[:2], *MONO[:2])),
    "mathematical": Script("∀∃∂∇∈⊥∑√∞∠∧∨∩∪∫≈≠≤⊂⊕", (*SANS, *SERIF[:1], *MONO[:1], *STIX[:1])),
}
CHARACTERS = "".join(script.characters for script in SCRIPTS.values())


def subtasks() -> dict[str, tuple[int, ...]]:
    """Return each script's classes: the natural sub-tasks."""
    return {
        name: tuple(CHARACTERS.index(character) for character in script.characters) for name, script in SCRIPTS.items()
    }


@register("data", "glyphs")
@dataclass(frozen=True)
class Glyphs(DataSource):
    """160 characters of eight scripts, drawn with matplotlib's fonts; needs no files.

    Attributes:
        train_per_class: Training images of each character; pool, validation cut and shards come from these.
        test_per_class: Test images of each character.
        seed: Seed of the drawing.
        noise: Largest standard deviation of the pixel noise, in grey levels of 255.
        variation: Scale of the differences in size, width, slant, tilt and place; 0 draws each character upright in
            the middle.
        fonts: Draw with these font files only; empty means all that a script has. Fonts are natural domain shifts.
    """

    train_per_class: int = 200
    test_per_class: int = 50
    seed: int = 0
    noise: float = 20.0
    variation: float = 1.0
    fonts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.train_per_class < 1 or self.test_per_class < 1:
            raise ValueError("train_per_class and test_per_class must be at least 1.")
        if not 0 <= self.noise <= 128:
            raise ValueError(f"noise must lie between 0 and 128 grey levels, not {self.noise}.")
        if not 0 <= self.variation <= 1.5:
            raise ValueError(f"variation must lie between 0 and 1.5, not {self.variation}.")
        for name, script in SCRIPTS.items():
            if self.fonts and not set(self.fonts) & set(script.fonts):
                raise ValueError(f"None of fonts={list(self.fonts)} has the {name} script, which has: {script.fonts}.")

    def load(self) -> Dataset:
        """Draw the data set's random values; the pixels follow when they are read."""
        train = self.draw(self.train_per_class, "train")
        test = self.draw(self.test_per_class, "test")
        fingerprint = content_hash("glyphs", train.content(), test.content())
        return Dataset("glyphs", train, test, tuple(CHARACTERS), fingerprint, subtasks())

    def draw(self, per_class: int, *purpose: str | int) -> "GlyphImages":
        """Draw `per_class` images of each character from the stream that `purpose` names."""
        random = stream(self.seed, "glyphs", *purpose)
        labels = np.repeat(np.arange(len(CHARACTERS)), per_class)
        count = len(labels)

        def vary(low: float, high: float, *size: int) -> NDArray[np.float32]:
            middle, reach = (low + high) / 2, (high - low) / 2 * self.variation
            return random.uniform(middle - reach, middle + reach, (count, *size)).astype(np.float32)

        return GlyphImages(
            labels=labels,
            master=_choose_fonts(labels, self.fonts, random),
            size=vary(0.5, 0.75),
            stretch=vary(0.85, 1.18),
            slant=vary(-0.25, 0.25),
            tilt=vary(-0.15, 0.15),
            place=vary(-3, 3, 2),
            ink=random.uniform(130, 255, (count, 3)).astype(np.float32),
            ground=random.uniform(0, 70, (count, 3)).astype(np.float32),
            noise=random.uniform(0, self.noise, count).astype(np.float32),
            noise_start=random.integers(0, NOISE_BANK - SIDE * SIDE * 3, count),
        )


@dataclass(frozen=True)
class GlyphImages(ImageSet):
    """Characters that are drawn when read; each field holds one value or row an image.

    Attributes:
        labels: Index into `CHARACTERS`.
        master: Index into the masters of all characters and fonts.
        size: Size of a master's pixel in the image, in pixels.
        stretch: Width over height.
        slant: Horizontal shear.
        tilt: Vertical shear.
        place: (images, 2) shift of the centre in pixels, horizontal and vertical.
        ink: (images, 3) colour of the character.
        ground: (images, 3) colour behind it.
        noise: Standard deviation of the pixel noise in grey levels.
        noise_start: Where in the noise bank the image's noise starts.
    """

    labels: IntArray
    master: IntArray
    size: NDArray[np.float32]
    stretch: NDArray[np.float32]
    slant: NDArray[np.float32]
    tilt: NDArray[np.float32]
    place: NDArray[np.float32]
    ink: NDArray[np.float32]
    ground: NDArray[np.float32]
    noise: NDArray[np.float32]
    noise_start: IntArray

    def read(self, indices: IntArray) -> Pixels:
        """Draw the images at `indices`."""
        pixels = np.empty((len(indices), SIDE, SIDE, 3), np.uint8)
        for start in range(0, len(indices), 128):  # a chunk's intermediate arrays fit the processor's cache
            pixels[start : start + 128] = self._draw(np.asarray(indices[start : start + 128]))
        return pixels

    def take(self, indices: IntArray) -> "GlyphImages":
        """Return the images at `indices` as a set of their own, not yet drawn."""
        return GlyphImages(**{field.name: getattr(self, field.name)[indices] for field in fields(self)})

    def content(self) -> str:
        """Hash everything that the pixels follow from."""
        return content_hash(self, masters(), noise_bank())

    def _draw(self, chosen: IntArray) -> Pixels:
        mask = self._sample_masters(chosen)[..., None]
        ground, ink = self.ground[chosen][:, None, None], self.ink[chosen][:, None, None]
        noise = noise_bank()[self.noise_start[chosen][:, None] + np.arange(SIDE * SIDE * 3)]
        noise = noise.reshape(len(chosen), SIDE, SIDE, 3) * self.noise[chosen][:, None, None, None]
        colour: NDArray[np.float32] = ground + (ink - ground) * mask + noise
        return np.clip(np.rint(colour), 0, 255).astype(np.uint8)

    def _sample_masters(self, chosen: IntArray) -> NDArray[np.float32]:
        """Map masters into images with bilinear interpolation; (images, SIDE, SIDE) in [0, 1]."""
        axis = np.arange(SIDE, dtype=np.float32) - np.float32((SIDE - 1) / 2)
        x = axis[None, None, :] - self.place[chosen, 0][:, None, None]
        y = axis[None, :, None] - self.place[chosen, 1][:, None, None]
        scale = 1 / self.size[chosen][:, None, None]
        slant, tilt = self.slant[chosen][:, None, None], self.tilt[chosen][:, None, None]
        centre, last = np.float32((MASTER_SIDE - 1) / 2), np.float32(MASTER_SIDE - 1.001)
        across = np.clip(centre + (x + slant * y) * (scale / self.stretch[chosen][:, None, None]), 0, last)
        down = np.clip(centre + (y + tilt * x) * scale, 0, last)
        left, top = across.astype(np.int32), down.astype(np.int32)
        right_share, bottom_share = across - left, down - top
        corner = (self.master[chosen].astype(np.int32)[:, None, None] * MASTER_SIDE + top) * MASTER_SIDE + left
        flat = masters().reshape(-1)
        upper = flat[corner] + (flat[corner + 1] - flat[corner]) * right_share
        corner += MASTER_SIDE
        lower = flat[corner] + (flat[corner + 1] - flat[corner]) * right_share
        mixed: NDArray[np.float32] = upper + (lower - upper) * bottom_share
        return mixed


def _choose_fonts(labels: IntArray, fonts: tuple[str, ...], random: np.random.Generator) -> IntArray:
    """Choose for each label one of the masters of its character, all fonts alike; returns master indices."""
    options = [
        [
            index
            for index, (character, font) in enumerate(_master_names())
            if character == wanted and _allowed(font, fonts)
        ]
        for wanted in CHARACTERS
    ]
    counts = np.array([len(masters_of_character) for masters_of_character in options])
    table = np.zeros((len(options), counts.max()), np.int64)
    for row, masters_of_character in zip(table, options, strict=True):
        row[: len(masters_of_character)] = masters_of_character
    picked: IntArray = table[labels, random.integers(0, counts[labels])]
    return picked


def _allowed(font: str, fonts: tuple[str, ...]) -> bool:
    return not fonts or font in fonts


@lru_cache(maxsize=1)
def _master_names() -> tuple[tuple[str, str], ...]:
    """Return (character, font) of each master."""
    return tuple(
        (character, font) for script in SCRIPTS.values() for character in script.characters for font in script.fonts
    )


@lru_cache(maxsize=1)
def masters() -> NDArray[np.float32]:
    """Draw each character once in each of its fonts: (masters, MASTER_SIDE, MASTER_SIDE) in [0, 1], centred."""
    from matplotlib import get_data_path
    from PIL import Image, ImageDraw, ImageFont

    folder = Path(get_data_path()) / "fonts" / "ttf"
    files = {font: ImageFont.truetype(folder / f"{font}.ttf", MASTER_EM) for _, font in _master_names()}
    drawn = np.empty((len(_master_names()), MASTER_SIDE, MASTER_SIDE), np.float32)
    for target, (character, font) in zip(drawn, _master_names(), strict=True):
        canvas = Image.new("L", (MASTER_SIDE, MASTER_SIDE))
        left, top, right, bottom = files[font].getbbox(character)
        corner = ((MASTER_SIDE - left - right) / 2, (MASTER_SIDE - top - bottom) / 2)
        ImageDraw.Draw(canvas).text(corner, character, fill=255, font=files[font])
        target[:] = np.asarray(canvas, np.float32) / 255
    return drawn


@lru_cache(maxsize=1)
def noise_bank() -> NDArray[np.float32]:
    """Standard normal values that all images take their noise from."""
    return stream(0, "glyphs", "noise").standard_normal(NOISE_BANK, dtype=np.float32)
