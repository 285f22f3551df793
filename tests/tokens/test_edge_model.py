"""A reduced edge model after a journey as arrays and a text, and as ONNX."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedprune.core.errors import ModelError
from fedprune.protocol.storage import StoredModel
from fedprune.testing.reducers import stir
from fedprune.testing.tasks import random_keep
from fedprune.tokens.counts import count_reduced_macs, token_counts
from fedprune.tokens.edge_model import TokenSpec, reduced_edge
from fedprune.tokens.reduced import reduce
from fedprune.tokens.selector import LearnedStage
from fedprune.vit.export import check_onnx, export_onnx
from fedprune.vit.shape import Keep
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


def rotated_cut(base, keep):
    """An edge model of `base` with its stream rotated; the last direction stays."""
    source = rotate(base, random_directions(base.shape.embed))
    return cut(source, replace(keep, embed=np.union1d(keep.embed, [base.shape.embed - 1])))


@pytest.mark.parametrize("name", ["dynamicvit", "spvit", "heatvit", "ltmp"])
def test_a_trained_selector_reads_the_bases_own_stream_where_it_is_rotated(name, monkeypatch):
    """With nothing cut the edge model computes what the base does, if its selectors see no mean over dimensions."""
    base = random_base()
    own = stir(reduce(base.model, base.shape, REDUCERS[name](keep=0.6)))
    edge = rotated_cut(base, Keep.everything(base.shape))
    turned = reduced_edge(edge, REDUCERS[name](keep=0.6), base.shape, dict(own.stages.state_dict()))
    monkeypatch.setattr(LearnedStage, "_read", read_without_mean)
    expected = own(images())
    monkeypatch.undo()
    torch.testing.assert_close(turned.model(images()), expected, atol=1e-10, rtol=0)


def read_without_mean(stage, x):
    return x - x.mean(-1, keepdim=True)


def test_what_takes_a_rotated_stream_back_travels_and_is_counted():
    base = random_base()
    reducer = REDUCERS["spvit"](keep=0.6)
    parameters = dict(stir(reduce(base.model, base.shape, reducer)).stages.state_dict())
    edge = rotated_cut(base, random_keep(base.shape, 0))
    reduced = reduced_edge(edge, reducer, base.shape, parameters)
    assert reduced.tensors["tokens.back"].shape == (base.shape.embed, edge.shape.embed)
    assert torch.equal(travelled(reduced)(images()), reduced.model(images()))
    rebuilt = travelled(reduced)
    assert count_reduced_macs(rebuilt) == reduced.macs
    scored = sum(entering - base.shape.prefix_tokens - earlier for entering, earlier in scored_tokens(reduced))
    as_it_is = reduced_edge(replace(edge, source=base), reducer, base.shape, parameters)
    assert reduced.macs - as_it_is.macs == scored * base.shape.embed * edge.shape.embed


def scored_tokens(reduced):
    """Tokens that come to each selector, and the packages among them."""
    counts = token_counts(reduced.shape, reduced.model.at)
    return [(counts[block][0], earlier) for earlier, block in enumerate(sorted(reduced.model.at))]


def test_a_reducer_without_a_selector_takes_any_stream():
    base = random_base()
    edge = rotated_cut(base, random_keep(base.shape, 0))
    reduced = reduced_edge(edge, REDUCERS["evit"](keep=0.6), base.shape)
    assert torch.equal(travelled(reduced)(images()), reduced.model(images()))
    assert "tokens.back" not in reduced.tensors
