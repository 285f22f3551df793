"""Prose and identifiers: the table names what there is, and no figure shows an identifier."""

import pytest

from fedprune.core.kinds import KINDS
from fedprune.core.registry import names
from fedprune.report.names import NAMES, in_prose
from fedprune.study.metrics import metric
from fedprune.study.names import study_names
from fedprune.study.study import read_study
from tests.report.texts import identifiers_in

SCALES = {"glyphs", "digits", "cifar", "tiny", "paper"}


def test_every_name_is_of_something_that_there_is():
    options = {name for kind in KINDS for name in names(kind)}
    assert NAMES.keys() <= options | SCALES | {"qk", "v", "embed"}


def test_what_the_table_lacks_reads_as_its_words():
    assert in_prose("nuwa_v1") == "NuWa v1"
    assert in_prose("large_carnivores + trees") == "large carnivores + trees"


@pytest.mark.parametrize("name", study_names())
def test_no_study_labels_anything_by_an_identifier(name):
    study = read_study(name)
    shown = [study.title, *(line.label for line in (*study.rows, *study.columns)), metric(study.metric).label]
    shown += [study.drawing.get(key, "") for key in ("x_label", "y_label")]
    shown += [metric(study.x_metric).label] if study.x_metric else []
    assert {text: identifiers_in(text) for text in shown if identifiers_in(text)} == {}
