"""The same on the real ViT-Tiny with real photographs."""

import numpy as np
from scipy.stats import spearmanr

from fedprune.evidence.evidence import Evidence
from fedprune.evidence.measure import Pass, measure
from tests.evidence.explicit_gates import gate_gradients


def test_rows_equal_explicit_gates_on_vit_tiny(vit_tiny, photographs):
    how = Pass(precision="fp64", batch_size=2)
    (batch,) = measure(
        vit_tiny.model, vit_tiny.shape, vit_tiny.preprocess, photographs, np.arange(2), ("gradient",), how
    )
    rows = batch[1]["gradient"]
    assert rows.shape == (2, 14076)
    pixels = vit_tiny.preprocess(photographs.pixels[1:2])[0].double()
    model = vit_tiny.model.double()
    expected = gate_gradients(model, vit_tiny.shape, pixels, int(photographs.labels[1]))
    vit_tiny.model.float()
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(rows[1], expected, rtol=0, atol=1e-12)


def test_half_precision_keeps_the_ranks(vit_tiny, photographs, tmp_path):
    means = {}
    for precision in ("fp32", "bf16"):
        evidence = Evidence(vit_tiny, photographs, tmp_path, images_id="24", precision=precision, batch_size=8)
        means[precision] = evidence.mean_row("taylor_abs", np.arange(24))
    assert spearmanr(means["fp32"], means["bf16"]).statistic > 0.99
