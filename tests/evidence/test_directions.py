import numpy as np
import pytest
import torch

from fedprune.core.errors import ConfigError
from fedprune.evidence.directions import DIRECTIONS, stream_directions
from fedprune.evidence.evidence import Evidence
from fedprune.evidence.measure import Pass
from fedprune.testing.tasks import FAMILIES, random_base, task_of
from fedprune.vit.stream import mean_free, rotate

FP64 = Pass(precision="fp64", batch_size=5)


def directions(kind, base, task, how=FP64):
    return stream_directions(kind, base.model, base.shape, base.preprocess, task.images, task.pool, how)


@pytest.mark.parametrize("kind", DIRECTIONS)
@pytest.mark.parametrize("variant", FAMILIES)
def test_every_kind_rotates_every_base(variant, kind):
    base = random_base(variant)
    task = task_of(base, images=12)
    pixels = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    turned = rotate(base, directions(kind, base, task))
    torch.testing.assert_close(turned.model(pixels), base.model(pixels), rtol=0, atol=1e-12)


def test_pca_and_geo_are_the_eigenvectors_of_their_formulas():
    base = random_base("plain")
    task = task_of(base, images=12)
    pixels = base.preprocess(task.images.read(task.pool)).double()
    labels = torch.from_numpy(task.images.labels[task.pool])
    # written out by hand: walk the blocks with autograd and read every norm's input
    vit = base.model
    seen = [vit._pos_embed(vit.patch_embed(pixels)).requires_grad_()]
    for block in vit.blocks:
        seen.append(seen[-1] + block.attn(block.norm1(seen[-1])))
        seen.append(seen[-1] + block.mlp(block.norm2(seen[-1])))
    loss = torch.nn.functional.cross_entropy(vit.head(vit.norm(seen[-1])[:, 0]), labels, reduction="sum")
    moments = [torch.zeros(16, 16, dtype=torch.float64) for _ in range(2)]
    for values, slope in zip(seen, torch.autograd.grad(loss, seen), strict=True):
        unit = torch.nn.functional.layer_norm(values.detach(), (16,))
        for token in range(unit.shape[1]):
            moments[0] += (8 if token == 0 else 1) * unit[:, token].T @ unit[:, token]
            moments[1] += slope[:, token].T @ slope[:, token]
    axes = mean_free(16)
    within = [axes.T @ moment @ axes for moment in moments]
    logs = []
    for moment in within:
        lifted = moment / moment.trace() + 1e-6 / 15 * torch.eye(15)
        values, vectors = torch.linalg.eigh(lifted)
        logs.append(vectors @ torch.diag(values.log()) @ vectors.T)
    for kind, matrix in (("pca", within[0]), ("geo", logs[0] + logs[1])):
        found = directions(kind, base, task)
        turned = found.T @ (axes @ matrix @ axes.T).numpy() @ found
        strength = np.diag(turned)
        np.testing.assert_allclose(turned, np.diag(strength), atol=1e-7 * np.abs(turned).max())
        assert (np.diff(strength) <= 0).all()


def test_evidence_measures_them_once(tmp_path):
    base = random_base("plain", dtype=torch.float32)
    task = task_of(base, images=12)
    first, second = (Evidence(base, task.images, tmp_path, images_id="i", precision="fp32") for _ in range(2))
    wanted = first.directions("geo", task.pool)
    assert np.array_equal(second.directions("geo", task.pool), wanted)
    assert (first.measured, second.measured) == (12, 0)
    assert not np.array_equal(second.directions("pca", task.pool), wanted)
    assert second.measured == 12


def test_unknown_directions_are_refused():
    base = random_base("plain")
    with pytest.raises(ConfigError, match="north"):
        directions("north", base, task_of(base))
