"""The drawing at the top of README: its words stay inside their boxes, whatever font a reader has."""

from pathlib import Path
from xml.etree import ElementTree

STORY = Path(__file__).parents[1] / "docs" / "story.svg"
SVG = "{http://www.w3.org/2000/svg}"


def test_every_text_has_its_width_and_room_on_both_sides():
    root = ElementTree.parse(STORY).getroot()
    boxes = [[float(box.get(name, 0)) for name in ("x", "y", "width", "height")] for box in root.iter(f"{SVG}rect")]
    for group in root.iter(f"{SVG}g"):
        for text in group.findall(f"{SVG}text"):
            assert text.get("lengthAdjust") == "spacingAndGlyphs", text.text
            x, y, wide = (float(text.get(name, "nan")) for name in ("x", "y", "textLength"))
            left = x - wide / 2 if group.get("text-anchor") == "middle" else x
            around = [box for box in boxes if box[0] <= x < box[0] + box[2] and box[1] <= y < box[1] + box[3]]
            box_left, _, box_width, _ = min(around, key=lambda box: box[2])
            assert box_left + 12 <= left, text.text
            assert left + wide <= box_left + box_width - 12, text.text
