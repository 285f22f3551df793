"""Small drawings for the report page: inline SVG and data URIs, nothing that needs a network."""

import base64
import io

import numpy as np
from markupsafe import Markup, escape
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from fedprune.report.style import GREY
from fedprune.vit.shape import BlockShape, Shape

ATTENTION, MLP = "#56B4E9", "#E69F00"
HEIGHT, BAR, GAP = 44, 7, 5  # of the drawing of a model's blocks, in pixels


def inline_svg(figure: Figure, alt: str) -> Markup:
    """Return a figure as an SVG element whose ink is that of the page around it, light or dark.

    Args:
        figure: What is drawn; black and `style.GREY` become the page's own.
        alt: What it shows, in words.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue().replace("#000000", "currentColor").replace(to_hex(GREY), "var(--soft)")
    return Markup(f'<svg role="img" fill="currentColor" aria-label="{escape(alt)}"{text[text.index("<svg") + 4 :]}')


def inline_photo(figure: Figure, dpi: int = 110) -> str:
    """Return a figure of images as a data URI (WebP: a tenth of a PNG's bytes)."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="webp", dpi=dpi, pil_kwargs={"quality": 85})
    return _uri("webp", buffer.getvalue())


def contact_sheet(images: NDArray[np.uint8], columns: int = 16, side: int = 40) -> str:
    """Return images side by side as one data URI (WebP).

    Args:
        images: (n, height, width, 3) bytes.
        columns: Images a line.
        side: Side of each image on the sheet in pixels.
    """
    lines = -(-len(images) // columns)
    sheet = Image.new("RGBA", (min(columns, len(images)) * (side + 2), lines * (side + 2)))
    for number, pixels in enumerate(images):
        tile = Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(tile, (number % columns * (side + 2), number // columns * (side + 2)))
    buffer = io.BytesIO()
    sheet.save(buffer, format="webp", quality=90)
    return _uri("webp", buffer.getvalue())


def draw_blocks(base: Shape, edge: Shape | None, kept: tuple[int, ...]) -> Markup:
    """Draw a model's blocks: what stays of attention and MLP beside the outline of the base.

    Args:
        base: Shape of the base.
        edge: Shape of the edge model, None where there is none.
        kept: Which base block each block of the edge model was.
    """
    blocks = dict(zip(kept, edge.blocks if edge else (), strict=False))
    width = len(base.blocks) * (2 * BAR + GAP)
    parts, stay = [], []
    for index, full in enumerate(base.blocks):
        left = index * (2 * BAR + GAP)
        stays = blocks.get(index, BlockShape(0, 0, 0, 0))
        attention = stays.heads * (stays.qk + stays.v) / (full.heads * (full.qk + full.v))
        stay.append(f"{100 * attention:.0f} / {100 * stays.neurons / full.neurons:.0f}")
        parts += _bar(left, attention, ATTENTION, f"block {index}: {stays.heads} heads of {stays.qk} + {stays.v}")
        parts += _bar(left + BAR, stays.neurons / full.neurons, MLP, f"block {index}: {stays.neurons} neurons")
    alt = f"Kept of attention / MLP in each block, in percent: {', '.join(stay)}"
    size = f'viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}"'
    return Markup(f'<svg class="blocks" {size} role="img" aria-label="{alt}">{"".join(parts)}</svg>')


def _bar(left: int, share: float, colour: str, title: str) -> list[str]:
    full, height = HEIGHT - 2, (HEIGHT - 2) * share
    place = f'<rect x="{left + 0.5}" width="{BAR - 1}"'
    return [
        f'{place} y="1" height="{full}" fill="none" stroke="currentColor" stroke-opacity="0.3" stroke-width="0.6"/>',
        f'{place} y="{1 + full - height:.1f}" height="{height:.1f}" fill="{colour}"><title>{title}</title></rect>',
    ]


def draw_label_mix(counts: NDArray[np.int64]) -> Markup:
    """Draw how many images of each class a device has, as a strip of bars over all classes."""
    width, height = 132, 24
    step, top = width / len(counts), max(int(counts.max()), 1)
    bars = "".join(
        f'<rect x="{label * step:.2f}" y="{height - height * count / top:.1f}" width="{max(step, 0.8):.2f}" '
        f'height="{height * count / top:.1f}" fill="#0072B2"/>'
        for label, count in enumerate(counts.tolist())
        if count
    )
    line = f'<line x1="0" x2="{width}" y1="{height}" y2="{height}" stroke="currentColor" stroke-opacity="0.5"/>'
    there = counts[counts > 0]
    spread = f", {there.min()} to {there.max()} of each" if len(there) else ""
    alt = f"Private images of {len(there)} of {len(counts)} classes{spread}"
    size = f'viewBox="0 0 {width} {height + 1}" width="{width}" height="{height + 1}"'
    return Markup(f'<svg class="mix" {size} role="img" aria-label="{alt}">{bars}{line}</svg>')


def png_uri(data: bytes) -> str:
    """Return a PNG file as a data URI."""
    return _uri("png", data)


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
