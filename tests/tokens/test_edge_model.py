"""A reduced edge model after a journey as arrays and a text, and as ONNX."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedprune.core.errors import ModelError
from fedprune.protocol.storage import StoredModel
from fedprune.testing.reducers import stir
from fedprune.testing.tasks import random_keep
from fedprune.tokens.edge_model import TokenSpec, reduced_edge
from fedprune.tokens.reduced import reduce
from fedprune.vit.export import check_onnx, export_onnx
from fedprune.vit.stream import rotate
from fedprune.vit.surgery import cut
from tests.protocol.test_storage import travelled
from tests.tokens.test_reduced import NAMES, REDUCERS
from tests.tokens.vits import images, random_base
from tests.vit.test_stream import random_directions


def test_a_plain_edge_model_travels_without_a_text():
    base = random_base()
    edge = cut(base, random_keep(base.shape, 0))
    assert edge.tokens == ""
    assert torch.equal(travelled(edge)(images()), edge.model(images()))


def test_a_damaged_text_is_refused():
    base = random_base()
    edge = reduced_edge(cut(base, random_keep(base.shape, 0)), REDUCERS["spvit"](keep=0.6), base.shape)
    stored = StoredModel.of(edge)
    with pytest.raises(ModelError, match="not the specification"):
        replace(stored, tokens=stored.tokens[:-4]).build()
    with pytest.raises(ModelError, match="not the specification"):
        TokenSpec.from_json('{"reducer": 3}')
    lost = {name: values for name, values in stored.tensors.items() if "attention" not in name or "blocks" in name}
    with pytest.raises(ModelError, match="does not fit"):
        replace(stored, tensors=lost).build()


EXPORTS = [name if name in ("spvit", "tome") else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]


@pytest.mark.parametrize("name", EXPORTS)
def test_fixed_counts_export_to_onnx(name, tmp_path):
    pytest.importorskip("onnxruntime")
    base = random_base(num_heads=2)
    units = random_keep(base.shape, 5)
    edge = cut(base, units)
    reduced = stir(reduce(edge.model.float(), edge.shape, REDUCERS[name](keep=0.6), base.shape, units))
    path = tmp_path / "model.onnx"
    export_onnx(reduced, edge.shape, path)
    assert check_onnx(reduced, path, images(3).float()) < 1e-4
    assert np.isfinite(path.stat().st_size)


def test_a_trained_selector_is_refused_on_a_rotated_stream():
    """Its weights name the base's own dimensions; on a rotated stream they would read others without a word."""
    base = random_base()
    keep = random_keep(base.shape, 0)
    source = rotate(base, random_directions(base.shape.embed))
    turned = cut(source, replace(keep, embed=np.union1d(keep.embed, [base.shape.embed - 1])))
    parameters = dict(reduce(base.model, base.shape, REDUCERS["spvit"](keep=0.6)).stages.state_dict())
    with pytest.raises(ModelError, match="method.stream=as_is"):
        reduced_edge(turned, REDUCERS["spvit"](keep=0.6), base.shape, parameters)
    untrained = reduced_edge(turned, REDUCERS["evit"](keep=0.6), base.shape)
    assert torch.isfinite(untrained.model(images())).all()
