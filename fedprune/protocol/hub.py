"""Edge models as the Hugging Face hub has models: `save_pretrained`, `from_pretrained`, `push_to_hub`."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelHubMixin, hf_hub_download
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from torch import Tensor, nn

from fedprune.core.files import write_text
from fedprune.protocol.storage import StoredModel
from fedprune.vit.card import card_of, markdown_of

TAGS = ["vision-transformer", "pruned"]


class HubModel(nn.Module, ModelHubMixin, library_name="fedprune", tags=[*TAGS]):
    """An edge model with huggingface_hub's own methods.

    `HubModel.from_file("device-003.safetensors").save_pretrained(folder)` writes `config.json` (shape, classes,
    preprocessing), `model.safetensors` and a model card; `HubModel.from_pretrained(folder or name)` reads it again.
    `model.safetensors` is a file like any other of an edge model: it is verified, and `load_edge_model` reads it too.

    Attributes:
        stored: The model as it was read: shape, card, token reducer.
        model: The plain module that answers.
    """

    def __init__(self, stored: StoredModel) -> None:
        super().__init__()
        self.stored = stored
        loaded = stored.build()
        self.model: nn.Module = loaded.model
        self._backbone = [loaded.backbone]  # in a list: it is part of `model`, and counts once

    @classmethod
    def from_file(cls, path: str | Path) -> "HubModel":
        """Take over an edge model's file.

        Raises:
            ModelError: the file is missing, truncated, edited or not one of ours.
        """
        return cls(StoredModel.read(path))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (images, classes) for pixels (images, 3, size, size)."""
        logits: Tensor = self.model(pixels)
        return logits

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write the folder; weights are those of now, also after a training."""
        now = {name: tensor.detach().cpu().contiguous() for name, tensor in self._backbone[0].state_dict().items()}
        stored = replace(self.stored, tensors={**self.stored.tensors, **now})
        stored.write(save_directory / SAFETENSORS_SINGLE_FILE)
        config = {"shape": asdict(stored.shape), **stored.card, "token_reducer": json.loads(stored.tokens or "null")}
        write_text(save_directory / CONFIG_NAME, json.dumps(config, indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **_: Any,
    ) -> "HubModel":
        """Read a folder, or a repository of the hub."""
        folder = Path(model_id)
        if folder.is_dir():
            return cls.from_file(folder / SAFETENSORS_SINGLE_FILE)
        path = hf_hub_download(
            model_id,
            SAFETENSORS_SINGLE_FILE,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
        )
        return cls.from_file(path)

    def generate_model_card(self, *_: Any, **__: Any) -> ModelCard:
        """Return what stands in the folder's README.md."""
        head = f"---\nlibrary_name: fedprune\ntags: {json.dumps(TAGS)}\n---\n\n"
        return ModelCard(head + markdown_of(card_of(self.stored.shape, self.stored.card), "edge model"))
