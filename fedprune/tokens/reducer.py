"""What a token reducer is: an option of kind `tokens`, and the stages that it puts into a model's blocks."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fedprune.core.ranges import at_least
from fedprune.tokens.attend import Attended
from fedprune.tokens.state import Tokens
from fedprune.vit.precision import PRECISIONS
from fedprune.vit.shape import BlockShape, Shape

Count = Any  # int, or an array or tensor of counts of many images


class Stage(nn.Module):
    """What a reducer does at one block. A stage marks tokens as gone; the model removes or masks them.

    Counts are those of tokens, prefix tokens and packages included. MACs are those of the stage's matrix products.

    Attributes:
        needs: What it reads from the block's attention: nothing, `"class"` (the class token's attention) or
            `"weights"` (the whole matrix).
        attends: Whether it works between attention and MLP, and so wants a block with attention.
        branches: How many branches of a block (a norm and some Linears) it counts for in a latency model.
        packages: Protected tokens that it adds.
        ragged: Whether images may keep different numbers of tokens.
        classified: Whether the model has a class token.
        back: What takes the model's stream to the base's own, where a stage that reads it needs that; see `turn`.
    """

    needs: ClassVar[str] = ""
    attends: ClassVar[bool] = False
    branches: ClassVar[int] = 0

    def __init__(self, packages: int = 0) -> None:
        super().__init__()
        self.packages = packages
        self.ragged = False
        self.classified = True
        self.back: Tensor | None = None

    def before(self, tokens: Tokens) -> Tokens:
        """Reduce in front of the block."""
        return tokens

    def gathered(self, tokens: Tokens) -> Tokens:
        """Reduce in front of the block and remove what `before` marks, where the number of tokens is fixed.

        A stage may do so in fewer steps; the outcome is the same.
        """
        return self.before(tokens).compact(self.count_before(tokens.x.shape[1], tokens.protected))

    def between(self, tokens: Tokens, attended: Attended) -> Tokens:
        """Reduce between the block's attention and its MLP."""
        return tokens

    def after(self, tokens: Tokens) -> Tokens:
        """Bring parked tokens back behind the block."""
        return tokens

    def count_before(self, count: int, protected: int) -> int:
        """Tokens that `before` leaves of `count`, `protected` of them protected, where their number is fixed."""
        return count

    def count_between(self, count: int, protected: int) -> int:
        """Tokens that `between` leaves of `count`, `protected` of them protected, where their number is fixed."""
        return count

    def count_after(self, count: int, entered: int) -> int:
        """Tokens behind the block if `count` left its MLP and `entered` came to it."""
        return count

    def macs_before(self, count: Count, protected: int, embed: int) -> Count:
        """MACs of `before` for one image that comes with `count` tokens, `protected` of them protected."""
        return 0 * count

    def macs_between(self, count: Count, block: BlockShape, embed: int) -> Count:
        """MACs of `between` for one image with `count` tokens, beyond those of the block itself."""
        return 0 * count

    def class_macs(self, count: Count, block: BlockShape) -> Count:
        """MACs of the class token's scores, which a fused attention kernel does not hand out."""
        return count * (block.heads * block.qk) if self.classified and self.needs == "class" else 0 * count

    def settle(self) -> None:
        """Take fixed numbers out of loaded parameters."""

    def connect(self, kept: torch.Tensor, width: int) -> None:
        """Let the stage read an edge model that kept the dimensions `kept` of a base of width `width`."""

    def turn(self, back: torch.Tensor) -> None:
        """Let the stage read an edge model whose stream (k) the matrix `back` (width, k) takes to the base's own."""


TRAINS = ("all", "selector")


@dataclass(frozen=True)
class TokenRecipe:
    """How a model is trained with a reducer in it; its teacher is the model as it was, without one.

    AdamW with gradients clipped to norm 1; both learning rates fall along a cosine to zero. As in SPViT's public code,
    the class token and the position embedding stay as they are.

    Attributes:
        steps: Steps of the optimiser.
        batch_size: Images a step.
        learning_rate: The selector's.
        backbone_rate: The backbone's, where it is trained.
        frozen: Share of the steps in which the backbone waits for the selector; SPViT's public code takes 5 of 30
            epochs, and a hundredth of the selector's rate from then on.
        weight_decay: AdamW's.
        label_weight: Weight of the cross-entropy to the labels.
        distillation_weight: Weight of the KL divergence from the teacher's outputs.
        token_weight: Weight of the squared distance of the tokens that are left to the teacher's.
        precision: `bf16`, `fp32` or `auto`.
    """

    steps: int = 400
    batch_size: int = 64
    learning_rate: float = 5e-3
    backbone_rate: float = 2e-4
    frozen: float = 0.0
    weight_decay: float = 0.01
    label_weight: float = 1.0
    distillation_weight: float = 0.5
    token_weight: float = 0.5
    precision: str = "auto"

    def __post_init__(self) -> None:
        """Refuse what cannot be trained with."""
        if self.steps < 1 or self.batch_size < 1 or self.learning_rate <= 0 or self.backbone_rate <= 0:
            raise ValueError("steps and batch_size must be at least 1, learning_rate and backbone_rate above 0")
        if not 0 <= self.frozen < 1:
            raise ValueError(f"frozen is {self.frozen}; it is a share of the steps below 1")
        at_least(self, 0, "weight_decay", "label_weight", "distillation_weight", "token_weight")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}; choose one of {', '.join(PRECISIONS)}")


@dataclass(frozen=True)
class Reducer(ABC):
    """An option of kind `tokens`: one file in this room.

    Attributes:
        keep: How much is kept; 1 is the base. Each reducer says what it is a share of.
        train: What learns on the public pool, once for all devices: `all`, backbone and selector, so that edge models
            are cut from the trained backbone; or `selector`, what the reducer has to train, if anything.
        training: How it learns.
    """

    trained: ClassVar[bool] = False  # whether its stages have parameters to train
    transferable: ClassVar[bool] = True  # whether parameters that were trained at one `keep` serve at others
    keep: float = 0.7
    train: str = "selector"
    training: TokenRecipe = field(default_factory=TokenRecipe)

    def __post_init__(self) -> None:
        """Refuse an impossible share and an unknown way of training."""
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep is {self.keep}; it is a share above 0 and at most 1")
        if self.train not in TRAINS:
            raise ValueError(f"train is {self.train!r}; choose one of {', '.join(TRAINS)}")

    @property
    def reads_labels(self) -> bool:
        """Whether the pool's labels are part of what trains it."""
        return (self.trained or self.train == "all") and self.training.label_weight > 0

    @abstractmethod
    def stages(self, shape: Shape) -> dict[int, Stage]:
        """Return new stages for a base of `shape` by block index; parameters start from a fixed seed."""

    def at(self, keep: float) -> "Reducer":
        """Return the same reducer at another strength."""
        return replace(self, keep=keep)

    def penalty(self, trace: "Trace", shape: Shape, stages: Mapping[int, Stage]) -> Tensor:
        """Return what training adds to the loss so that the wanted number of tokens is met; nothing by default."""
        return torch.zeros(())

    def calibrate(self, model: Any, batches: Iterable[Tensor]) -> None:  # noqa: B027
        """Fix what follows from trained parameters and some images, in a reduced model (`ReducedModel`)."""


@dataclass(frozen=True)
class Trace:
    """How many tokens lived where in one pass; one tensor (batch,) a block.

    Attributes:
        entering: In front of the block.
        attending: In its attention.
        mlp: In its MLP.
        leaving: Behind the block.
        protected: Those of them behind the block that no reducer touches: packages may be missing in some images.
    """

    entering: tuple[Tensor, ...]
    attending: tuple[Tensor, ...]
    mlp: tuple[Tensor, ...]
    leaving: tuple[Tensor, ...]
    protected: tuple[Tensor, ...]


@dataclass(frozen=True)
class Staged(Reducer):
    """A reducer that works at a few places and keeps a fixed share of the patch tokens at each.

    Attributes:
        keep: Share that each stage keeps of what the one before it left: keep, keep^2, keep^3 (DynamicViT, EViT).
        places: Where the stages stand, as shares of the depth: blocks 3, 6 and 9 of 12.
        ratios: Shares of the original patch tokens after each stage, in place of the powers of `keep`.
    """

    places: tuple[float, ...] = (0.25, 0.5, 0.75)
    ratios: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if (
            not self.places
            or any(not 0 <= place < 1 for place in self.places)
            or list(self.places) != sorted(self.places)
        ):
            raise ValueError(f"places are {self.places}; they rise and lie in [0, 1)")
        if self.ratios and len(self.ratios) != len(self.places):
            raise ValueError(f"there are {len(self.ratios)} ratios for {len(self.places)} places; give one for each")
        if any(not 0 < ratio <= 1 for ratio in self.ratios) or list(self.ratios) != sorted(self.ratios, reverse=True):
            raise ValueError(f"ratios are {self.ratios}; they fall and lie in (0, 1]")

    def at(self, keep: float) -> "Staged":
        """Return the same reducer at another strength."""
        return replace(self, keep=keep, ratios=())

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares of the original patch tokens after each stage."""
        return self.ratios or tuple(self.keep ** (index + 1) for index in range(len(self.places)))

    def stages(self, shape: Shape) -> dict[int, Stage]:
        """Return one stage a place; places that fall on one block or remove nothing give none."""
        found: dict[int, Stage] = {}
        left = shape.patches
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for place, share in zip(self.places, self.shares, strict=True):
                count = max(1, int(share * shape.patches + 1e-9))
                if count < left:
                    found[int(place * len(shape.blocks) + 1e-9)] = self.stage(shape, count)
                    left = count
        return found

    @abstractmethod
    def stage(self, shape: Shape, count: int) -> Stage:
        """Return a new stage that keeps `count` patch tokens."""
