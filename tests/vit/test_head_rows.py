"""Classes of a data set find their rows of a pretrained head, or a sentence says which one does not."""

import json
import re

import pytest

from fedprune.core.errors import ModelError
from fedprune.vit.head_rows import read_class_map, rows_of

IMAGENETTE = (
    "n01440764", "n02102040", "n02979186", "n03000684", "n03028079", "n03394916", "n03417042", "n03425413", "n03445777",
    "n03888257",
)  # fmt: skip


def test_imagenette_is_found_by_wordnet_ids_names_and_either_with_other_words():
    rows = [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]
    assert rows_of(IMAGENETTE, 1000) == rows
    assert rows_of([f"{name}-something" for name in IMAGENETTE], 1000) == rows
    names = ["Tench", "english_springer", "cassette player", "chain saw", "church", "French horn", "garbage truck"]
    assert (
        rows_of([*names, "gas pump, gasoline pump, petrol pump, island dispenser", "golf ball", "parachute"], 1000)
        == rows
    )


def test_a_whole_name_comes_before_a_part_of_one():
    assert rows_of(["maillot", "maillot, tank suit"], 1000) == [638, 639]


def test_a_class_map_settles_what_names_do_not(tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"crane": 134, "my cat": "n02123045", "my dog": "Labrador retriever"}))
    class_map = read_class_map(path)
    assert rows_of(["crane", "my cat", "my dog", "tench"], 1000, class_map) == [134, 281, 208, 0]


def test_a_head_in_order_is_kept_whatever_spelling_and_a_shuffled_one_is_not():
    from timm.data.imagenet_info import ImageNetInfo

    ids = ImageNetInfo("imagenet-1k").label_names()
    assert rows_of(list(map(str, range(1000))), 1000) == list(range(1000))
    assert rows_of([f"spelt otherwise {row}" if row % 3 == 0 else name for row, name in enumerate(ids)], 1000) == [
        *range(1000)
    ]
    assert rows_of(ids[::-1], 1000) == list(range(1000))[::-1]
    assert rows_of(["red", "green", "blue"], 3) == [0, 1, 2]


@pytest.mark.parametrize(
    ("classes", "head", "class_map", "sentence"),
    [
        (["tench", "crane"], 1000, {}, "'crane' may be several rows .* (134 is 'crane'; 517 is 'crane')"),
        (["tench", "teapots"], 1000, {}, "'teapots' is no class of the pretrained head"),
        (["n00000000"], 1000, {}, "'n00000000' is no class of the pretrained head"),
        (["tench", "Tinca tinca"], 1000, {}, "'tench' and 'Tinca tinca' are both row 0"),
        (["a"], 1000, {"a": 1000}, "'a', mapped to 1000, is no row of the pretrained head, which has rows 0 to 999"),
        (["a"], 1000, {"b": 3}, "names 'b', which is no class of the data set"),
        (["a", "b"], 3, {}, "'a' cannot be matched: nobody knows what the 3 rows"),
        (["a", "b"], 0, {}, "have no head to match classes with"),
    ],
)
def test_a_class_without_its_own_row_is_named(classes, head, class_map, sentence):
    with pytest.raises(ModelError, match=sentence.replace("(", r"\(").replace(")", r"\)")):
        rows_of(classes, head, class_map)


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1.5}', '{"a": true}', '{"a": null}', "[" * 100_000])
def test_a_class_map_of_another_form_is_refused(tmp_path, text):
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(ModelError, match=re.escape(str(path))):
        read_class_map(path)
