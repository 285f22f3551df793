import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedprune.protocol.answers import count_correct


def test_only_the_classes_that_are_asked_are_answered():
    logits = np.array([[9.0, 1.0, 2.0], [0.0, 5.0, 1.0]], dtype=np.float32)
    labels = np.array([2, 1])
    assert count_correct(logits, labels, (0, 1, 2), (0, 1, 2)) == 1
    assert count_correct(logits, labels, (0, 1, 2), (1, 2)) == 2


def test_a_class_without_a_row_is_never_answered():
    logits = np.array([[1.0], [1.0]], dtype=np.float32)
    assert count_correct(logits, np.array([3, 4]), rows=(3,), asked=(3, 4)) == 1
    assert count_correct(logits, np.array([3, 4]), rows=(3,), asked=(7,)) == 0


@given(st.integers(0, 2**32 - 1))
def test_counts_agree_with_answers_one_by_one(seed):
    rng = np.random.default_rng(seed)
    rows = tuple(int(row) for row in rng.permutation(9)[:6])
    asked = tuple(int(row) for row in rng.permutation(9)[:4])
    logits, labels = rng.normal(size=(20, 6)).astype(np.float32), rng.integers(0, 9, 20)
    right = 0
    for values, label in zip(logits, labels, strict=True):
        candidates = {row: value for row, value in zip(rows, values, strict=True) if row in asked}
        right += bool(candidates) and max(candidates, key=candidates.get) == label
    assert count_correct(logits, labels, rows, asked) == right
