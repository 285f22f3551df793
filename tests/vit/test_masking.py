import numpy as np
import pytest
import torch

from fedprune.vit.masking import masked
from tests.vit.random_vits import VARIANTS, images, masked_logits, random_base, random_keep


@pytest.mark.parametrize("variant", VARIANTS)
def test_masked_module_equals_masking_written_out_by_hand(variant):
    base = random_base(**VARIANTS[variant])
    before = base.model(images())
    for seed in range(5):
        keep = random_keep(base.shape, np.random.default_rng(seed))
        logits = masked(base, keep)(images())[:, torch.as_tensor(keep.classes)]
        torch.testing.assert_close(logits, masked_logits(base, keep, images()), atol=1e-12, rtol=0)
    assert torch.equal(base.model(images()), before)
