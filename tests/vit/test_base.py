import dataclasses

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from fedprune.core.errors import ModelError
from fedprune.core.sealed import write_sealed
from fedprune.data.glyphs import Glyphs
from fedprune.data.images import ArrayImages
from fedprune.data.public import cut_public
from fedprune.data.subtasks import Subtasks
from fedprune.testing.partitions import labelled
from fedprune.vit.base import Base, Preprocess, evaluating, predict
from fedprune.vit.base_file import create, load_base, save_base
from fedprune.vit.base_glyphs import ARCHITECTURE, PACKAGED, GlyphBase
from fedprune.vit.branches import quick
from fedprune.vit.training import accuracy_of

TINY = {"model": "vit_tiny_patch16_224", "img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
SQUARE = Preprocess(8, (0.5, 0.25, 0.0), (0.5, 0.5, 1.0))


def tiny_model(seed=0, classes=5):
    return create(TINY | {"num_classes": classes}, seed)


def noise(count=20, side=8, classes=5):
    random = np.random.default_rng(0)
    return ArrayImages(random.integers(0, 256, (count, side, side, 3), dtype=np.uint8), np.arange(count) % classes)


@pytest.fixture(scope="module")
def packaged():
    dataset = Glyphs(train_per_class=20, test_per_class=1).load()
    return GlyphBase().load(cut_public(dataset, Subtasks(devices=1).split(dataset, 0)), PACKAGED.parent)


def test_preprocessing_normalises_each_channel_exactly():
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    pixels[1] = 255
    values = SQUARE(pixels)
    assert values.shape == (2, 3, 8, 8)
    assert values.dtype == torch.float32
    assert values[:, :, 0, 0].tolist() == [[-1.0, -0.5, 0.0], [1.0, 1.5, 1.0]]
    assert pixels.max() == 255, "the bytes given were changed"


def test_preprocessing_resizes_without_leaving_the_range_of_bytes():
    pixels = np.zeros((1, 4, 4, 3), np.uint8)
    pixels[:, 2:] = 255
    values = Preprocess(9, (0.0,) * 3, (1.0,) * 3)(pixels)
    assert values.shape == (1, 3, 9, 9)
    assert (values.min(), values.max()) == (0, 1)
    flat = Preprocess(16, (0.0,) * 3, (1.0,) * 3)(np.full((1, 4, 4, 3), 51, np.uint8))
    torch.testing.assert_close(flat, torch.full((1, 3, 16, 16), 0.2))


def test_a_base_is_frozen_and_named_by_its_content():
    base, again, other = (Base.of(tiny_model(seed), SQUARE) for seed in (0, 0, 1))
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert base.fingerprint == again.fingerprint != other.fingerprint
    assert base.fingerprint != Base.of(tiny_model(), dataclasses.replace(SQUARE, mean=(0.5,) * 3)).fingerprint
    assert (base.shape.embed, base.shape.classes, base.shape.patches) == (16, 5, 4)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_predictions_are_the_models_logits_in_the_order_asked(batch_size):
    base, images = Base.of(tiny_model(), SQUARE), noise()
    indices = np.array([3, 19, 3, 0])
    with torch.inference_mode():
        expected = base.model(SQUARE(images.read(indices))).numpy()
    logits = predict(base.model, SQUARE, images, indices, batch_size, precision="fp32")
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert logits.dtype == np.float32
    assert predict(base.model, SQUARE, images, np.array([], np.int64)).shape == (0, 5)


def test_predictions_leave_the_callers_model_as_it_was():
    model, images = tiny_model().train(), noise()
    logits = predict(model, SQUARE, images, np.arange(4))
    assert model.training
    np.testing.assert_array_equal(logits, predict(model.eval(), SQUARE, images, np.arange(4)))
    elsewhere = evaluating(model, "meta")
    assert elsewhere is not model
    assert evaluating(model) is model
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


def test_bf16_is_close_to_float32_but_not_the_same():
    base, images = Base.of(tiny_model(), SQUARE), noise()
    indices = np.arange(20)
    full, half = (predict(base.model, SQUARE, images, indices, precision=name) for name in ("fp32", "bf16"))
    np.testing.assert_allclose(half, full, atol=0.05)
    assert (half != full).any()


@pytest.mark.parametrize(("side", "precision", "plain"), [(16, "bf16", True), (56, "bf16", False), (16, "fp32", False)])
def test_attention_that_is_differentiated_is_plain_in_bf16_with_few_tokens(side, precision, plain):
    model = VisionTransformer(img_size=side, patch_size=4, embed_dim=192, depth=1, num_heads=2, num_classes=3)
    with quick(model, precision, gradients=True):
        assert torch.backends.cuda.flash_sdp_enabled() is not plain
    with quick(model, precision):
        assert torch.backends.cuda.flash_sdp_enabled()
    gradients = []
    for differentiated in (True, False):
        model.zero_grad()
        with quick(model, precision, gradients=differentiated):
            answer = model(torch.linspace(-1, 1, 3 * side * side).reshape(1, 3, side, side))
        answer.float().square().sum().backward()
        gradients.append(model.blocks[0].attn.qkv.weight.grad.clone())
    torch.testing.assert_close(*gradients, atol=0.05 * float(gradients[1].abs().max()), rtol=0.1)


def test_a_base_survives_its_file(tmp_path):
    model = tiny_model(3)
    save_base(tmp_path / "full", model, TINY | {"num_classes": 5}, SQUARE, half=False)
    assert load_base(tmp_path / "full").fingerprint == Base.of(model, SQUARE).fingerprint
    save_base(tmp_path / "half", model, TINY | {"num_classes": 5}, SQUARE, half=True)
    half = load_base(tmp_path / "half")
    assert half.preprocess == SQUARE
    for name, value in half.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name].half().float())


def test_files_that_hold_no_base_are_refused_with_a_sentence(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(ModelError, match="There is no base"):
        load_base(tmp_path / "absent")
    (tmp_path / "broken").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be read"):
        load_base(tmp_path / "broken")
    save_file({"weight": torch.zeros(1)}, tmp_path / "bare")
    with pytest.raises(ModelError, match="has been changed since it was written"):
        load_base(tmp_path / "bare")
    write_sealed(tmp_path / "bare", {"weight": torch.zeros(1)})
    with pytest.raises(ModelError, match="without their architecture"):
        load_base(tmp_path / "bare")
    save_base(tmp_path / "other", tiny_model(), TINY | {"num_classes": 6}, SQUARE, half=False)
    with pytest.raises(ModelError, match="do not fit the architecture"):
        load_base(tmp_path / "other")


def test_an_unknown_architecture_is_refused_with_a_sentence():
    with pytest.raises(ModelError, match="timm cannot create the model"):
        create({"model": "vit_of_no_such_name"})
    with pytest.raises(ModelError, match="resnet18"):
        Base.of(create({"model": "resnet18", "num_classes": 5}), SQUARE)


def test_initial_weights_follow_from_the_seed_and_leave_torchs_own_stream_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first, again, other = tiny_model(0), tiny_model(0), tiny_model(1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.patch_embed.proj.weight, other.patch_embed.proj.weight)


def test_the_packaged_base_is_small_and_knows_fresh_characters(packaged):
    assert PACKAGED.stat().st_size <= 2_000_000
    assert (packaged.shape.embed, len(packaged.shape.blocks)) == (ARCHITECTURE["embed_dim"], ARCHITECTURE["depth"])
    images = Glyphs(seed=20_251_121).draw(5, "fresh")
    logits = predict(packaged.model, packaged.preprocess, images, np.arange(len(images)))
    assert accuracy_of(logits, images.labels) >= 0.85


def test_the_packaged_base_refuses_other_classes():
    data = labelled([9] * 3, [9] * 3)
    partition = Subtasks(devices=1, choice="random", classes_per_device=1).split(data, 0)
    with pytest.raises(ModelError, match="not the classes of data=small. Choose base=timm base.head=probe"):
        GlyphBase().load(cut_public(data, partition), PACKAGED.parent)
