"""Each reducer's own rule, against what a hand computes."""

import math
from dataclasses import replace

import pytest
import torch

from fedprune.core.registry import lookup
from fedprune.tokens.ats import sample
from fedprune.tokens.heatvit import gelu, quantize, sigmoid, softmax
from fedprune.tokens.matching import match, merge
from fedprune.tokens.reduced import reduce
from fedprune.tokens.spvit import CODE_RATIOS, SpVit
from fedprune.tokens.state import Tokens, living_first, top
from fedprune.vit.base_file import create
from fedprune.vit.inspect import read_shape
from tests.tokens.vits import images, random_base

NORMAL = {"dtype": torch.float64, "generator": torch.Generator().manual_seed(0)}


def tokens_of(x, protected=1, **fields):
    return Tokens(torch.as_tensor(x, dtype=torch.float64), protected, **fields)


def watch(reduced, x):
    """Inputs of each block's MLP norm, and what a hand needs of the last attention."""
    seen = []
    hooks = [
        block.norm2.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        for block in reduced.backbone.blocks
    ]
    reduced(x)
    for hook in hooks:
        hook.remove()
    return seen


def test_living_tokens_come_first_in_their_order():
    alive = torch.tensor([[1.0, 0, 1, 0, 1], [0, 0, 1, 1, 1]])
    assert living_first(alive).tolist() == [[0, 2, 4, 1, 3], [2, 3, 4, 0, 1]]


def test_of_equal_scores_the_earlier_token_wins():
    assert top(torch.zeros(1, 4), torch.ones(1, 4), 2).tolist() == [[1, 1, 0, 0]]
    assert top(torch.tensor([[9.0, 1, 1, 2]]), torch.tensor([[0.0, 1, 1, 1]]), 2).tolist() == [[0, 1, 0, 1]]


@pytest.mark.parametrize("fuse", ["sum", "mean"])
def test_evit_fuses_by_attention(fuse):
    base = random_base(depth=4)
    reducer = lookup("tokens", "evit")(keep=0.5, places=(0.0,), fuse=fuse)
    block = base.model.blocks[0]
    x = base.model._pos_embed(base.model.patch_embed(images(1)))
    query, key, value = block.attn.qkv(block.norm1(x)).reshape(1, 37, 3, 2, 6).permute(2, 0, 3, 1, 4)
    weights = (query @ key.transpose(-1, -2) / math.sqrt(6)).softmax(-1)
    x = x + block.attn.proj((weights @ value).transpose(1, 2).reshape(1, 37, 12))
    scores = weights[0, :, 0, 1:].mean(0)
    best = scores.argsort(descending=True)
    kept, lost = best[:18].sort().values + 1, best[18:] + 1
    share = scores[lost - 1] / (scores[lost - 1].sum() if fuse == "mean" else 1)
    expected = torch.cat((x[0, :1], x[0, kept], (share[:, None] * x[0, lost]).sum(0, keepdim=True)))
    seen = watch(reduce(base.model, base.shape, reducer), images(1))[0]
    assert (seen[0] - expected).abs().max() < 1e-12


def test_equal_tokens_merge_without_loss():
    """Two copies of a token, merged and counted twice, change nothing (ToMe, equation 1)."""
    base = random_base(depth=2)
    half = torch.randn(1, 18, 12, **NORMAL)
    twice = half.repeat_interleave(2, dim=1)
    metric = torch.cat((torch.zeros(1, 1, 12, dtype=torch.float64), twice), dim=1)
    x = torch.cat((torch.randn(1, 1, 12, **NORMAL), twice), dim=1)
    # The class token is rank 0, so sources are ranks 2, 4, ...: copies stand at ranks (1, 2), (3, 4), ...
    tokens = tokens_of(x)
    similarity, target = match(metric, tokens)
    assert similarity[0, 2::2].tolist() == pytest.approx([1.0] * 18)
    assert (similarity[0, 1::2] == -torch.inf).all()
    merged = merge(tokens, (similarity > 0.999).to(x.dtype), target)
    assert merged.counts.tolist() == [19]
    assert (merged.compact(19).x[0, 1:] - half[0]).abs().max() < 1e-12
    assert merged.compact(19).size.tolist() == [[1] + [2] * 18]
    from fedprune.tokens.attend import attend

    block = base.model.blocks[0]
    whole = attend(block.attn, block.norm1(x), tokens, True, False).output
    fewer = merged.compact(19)
    small = attend(block.attn, block.norm1(fewer.x), fewer, True, False).output
    assert (small[0, 0] - whole[0, 0]).abs().max() < 1e-12
    assert (small[0, 1:] - whole[0, 1::2]).abs().max() < 1e-12


def test_merging_weighs_by_size():
    tokens = tokens_of([[[0.0], [1.0], [4.0]]], 0, size=torch.tensor([[1.0, 3.0, 1.0]], dtype=torch.float64))
    done = merge(tokens, torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64), torch.tensor([[0, 1, 1]]))
    assert done.x[0, 1].tolist() == [(3 * 1.0 + 4.0) / 4]
    assert done.size[0, 1] == 4
    assert done.alive.tolist() == [[1, 1, 0]]


def test_ats_samples_by_cumulative_score():
    scores = torch.tensor([[0.0, 0.5, 0.1, 0.3, 0.1]])
    free = torch.tensor([[0.0, 1, 1, 1, 1]])
    # cumulative .5 .6 .9 1.0; points 1/8, 3/8, 5/8, 7/8 -> tokens 1, 1, 2, 3
    assert sample(scores, free, 4, "position").tolist() == [[0, 1, 1, 1, 0]]
    # the lowest first, tokens 4 3 2 1: cumulative .1 .3 .6 1.0; points 1/6, 1/2, 5/6 -> tokens 4, 2, 1
    scores = torch.tensor([[0.0, 0.4, 0.3, 0.2, 0.1]])
    assert sample(scores, free, 3).tolist() == [[0, 1, 1, 0, 1]]
    assert sample(scores, free, 3, "position").tolist() == [[0, 1, 0, 1, 0]]


def test_what_is_gone_has_no_part_in_ats_sampling():
    scores = torch.tensor([[0.0, 0.0, 0.4, 0.0, 0.3, 0.2, 0.1]])
    free = torch.tensor([[0.0, 0, 1, 0, 1, 1, 1]])
    for order, expected in (("score", [0, 0, 1, 0, 1, 0, 1]), ("position", [0, 0, 1, 0, 0, 1, 0])):
        assert sample(scores, free, 3, order).tolist() == [expected]


def test_ats_ragged_keeps_fewer():
    base = random_base()
    reducer = lookup("tokens", "ats")(keep=0.7)
    fixed = reduce(base.model, base.shape, reducer).run(images(4)).trace.mlp[-1]
    ragged = reduce(base.model, base.shape, reducer).set_ragged(True).run(images(4)).trace.mlp[-1]
    assert (ragged < fixed).all()
    assert len(set(ragged.tolist())) > 1


def test_evo_vit_moves_the_others_with_their_representative():
    base = random_base(depth=4)
    reduced = reduce(base.model, base.shape, lookup("tokens", "evo_vit")(keep=0.5, start=0.5))
    stage = reduced.at[2]
    x = torch.randn(1, 37, 12, **NORMAL)
    attention = torch.rand(1, 37, **NORMAL)
    parked = stage.before(tokens_of(x, attention=attention))
    lost = [index for index in range(37) if parked.alive[0, index] == 0]
    assert sorted(attention[0, 1:].argsort()[:18].add(1).tolist()) == lost
    share = attention[0, lost] / attention[0, lost].sum()
    assert (parked.x[0, 37] - (share[:, None] * x[0, lost]).sum(0)).abs().max() < 1e-12
    moved = parked.compact(20)
    after = stage.after(moved.with_x(moved.x + 1))
    assert after.x.shape == x.shape
    assert (after.x - x - 1).abs().max() < 1e-12


@pytest.mark.parametrize(("threshold", "patches"), [(0.0, 25), (math.inf, 36)])
def test_ppt_prunes_where_attention_is_uneven_and_pools_elsewhere(threshold, patches):
    base = random_base()
    reduced = reduce(base.model, base.shape, lookup("tokens", "ppt")(keep=0.7, threshold=threshold, places=(0.5,)))
    stage, seen = reduced.at[3], []
    original = stage.between
    stage.between = lambda tokens, attended: seen.append(original(tokens, attended)) or seen[-1]
    reduced(images(1))
    assert seen[0].compact(26).size[0, 1:].sum() == patches


@pytest.mark.parametrize(("side", "threshold"), [(24, 7e-5 * (196 / 36) ** 2), (56, 7e-5)])
def test_ppt_scales_its_threshold_to_the_number_of_tokens(side, threshold):
    """A share's variance falls with the square of the number of tokens; the paper's threshold is for 196."""
    stages = lookup("tokens", "ppt")(keep=0.7).stages(random_base(side=side).shape)
    assert [stage.threshold for stage in stages.values()] == [pytest.approx(threshold)] * 3


def test_sait_keeps_the_wanted_mass():
    base = random_base()
    small, large = (
        reduce(base.model, base.shape, lookup("tokens", "sait")(keep=0.5, mass=mass)).set_ragged(True)
        for mass in (0.3, 1.0)
    )
    assert (small.run(images()).trace.mlp[-1] < 20).all()
    assert (large.run(images()).trace.mlp[-1] == 37).all()


def test_ltmp_thresholds_at_their_start_keep_everything():
    base = random_base()
    reduced = reduce(base.model, base.shape, lookup("tokens", "ltmp")(keep=0.5)).set_ragged(True)
    assert (reduced(images()) - base.model(images())).abs().max() < 1e-12


@pytest.mark.parametrize(("package", "expected"), [("sum", 2.9), ("weighted_mean", 2.9 / 0.9), ("mean", 3.5)])
def test_spvit_packs_what_it_drops(package, expected):
    stage = SpVit(package=package, keep=0.5).stage(random_base().shape, 2).eval()
    # probabilities of staying .9 .8 .5 .4; values 1 2 1 6
    stage.logits = lambda x, mask: (
        torch.tensor([[0.9, 0.8, 0.5, 0.4]]).log()[..., None].double() * torch.tensor([1.0, 0.0])
    )
    x = torch.tensor([[[0.0], [1.0], [2.0], [1.0], [6.0]]], dtype=torch.float64)
    done = stage.before(tokens_of(x))
    assert done.protected == 2
    assert done.x[0, 1].item() == pytest.approx(expected)
    assert done.alive.tolist() == [[1, 1, 1, 1, 0, 0]]


def test_an_earlier_package_is_never_dropped():
    base = random_base()
    reduced = reduce(base.model, base.shape, SpVit(keep=0.5))
    trace = reduced.run(images()).trace
    assert [column.tolist() for column in trace.protected] == [[count] * 3 for count in (1, 2, 2, 3, 4, 4)]
    assert trace.mlp[-1].tolist() == [4 + 4] * 3


def test_published_counts():
    """MACs that the ratios imply on DeiT: DynamicViT .7 and SPViT's own ratios, selectors left out."""
    from fedprune.tokens.counts import macs_of, token_counts

    for size, dynamic, spvit in (("tiny", 0.775, 0.661), ("small", 2.878, 2.448), ("base", 11.06, 9.397)):
        with torch.device("meta"):
            model = create({"model": f"deit_{size}_patch16_224"})
        shape = read_shape(model)
        for reducer, expected in (
            (lookup("tokens", "dynamicvit")(keep=0.7), dynamic),
            (replace(SpVit(), ratios=CODE_RATIOS, package="sum"), spvit),
        ):
            counts = token_counts(shape, reducer.stages(shape))
            assert macs_of(shape, {}, counts) / 1e9 == pytest.approx(expected, rel=0.004)


def test_polynomials_are_near_what_they_replace():
    x = torch.linspace(-6, 6, 1001, dtype=torch.float64)
    assert (gelu(x) - torch.nn.functional.gelu(x)).abs().max() < 0.03
    assert (sigmoid(x) - x.sigmoid()).abs().max() < 0.02
    rows = torch.randn(50, 9, **NORMAL) * 4
    assert (softmax(rows) - rows.softmax(-1)).abs().max() < 0.02
    assert softmax(rows).sum(-1).tolist() == pytest.approx([1] * 50)


def test_eight_bits_round_by_at_most_half_a_step():
    x = torch.randn(20, 64, **NORMAL)
    step = x.abs().amax(-1, keepdim=True) / 127
    error = (quantize(x, 8) - x).abs()
    assert (error <= step / 2 + 1e-12).all()
    assert (quantize(quantize(x, 8), 8) - quantize(x, 8)).abs().max() < 1e-12
    assert len(quantize(x, 3)[0].unique()) <= 7


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"keep": 0.0}, "above 0"),
        ({"ratios": (0.5, 0.4)}, "2 ratios for 3 places"),
        ({"ratios": (0.5, 0.6, 0.1)}, "fall"),
        ({"places": (0.5, 0.2)}, "rise"),
        ({"package": "stack"}, "choose one of"),
        ({"reducer": "evit", "fuse": "some"}, "choose one of"),
        ({"reducer": "ats", "order": "size"}, "choose one of"),
    ],
)
def test_wrong_options_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        lookup("tokens", options.get("reducer", "spvit"))(**{k: v for k, v in options.items() if k != "reducer"})
