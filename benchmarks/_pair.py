"""transformers' LLaVA with PEFT's LoRA, and the same as a composition of ours: models, batches, steps."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _conversations import read_texts, write_tokenizer
from _llava_shape import LlavaShape, write_llava
from torch import Tensor, nn

from mmunify.checkpoint import Bundle, import_model
from mmunify.data.encode import Example
from mmunify.recipe import Recipe
from mmunify.train.learns import apply_learns
from mmunify.types import Batch

Clock = Callable[[], float]
RATE = 2e-4
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LEARNS = ["adapters.*", "*.low_rank.*"]
SPARE = 3
"""Rows of their tables behind the tokenizer's; as many as strings that our composition adds, which take these rows."""


@dataclass(frozen=True, kw_only=True)
class Shape(LlavaShape):
    """Sizes of the model, and of its LoRA."""

    rank: int = 16

    @property
    def image_id(self) -> int:
        """The tokenizer's last entry."""
        return self.vocabulary - SPARE - 1


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where and how it is measured."""

    fixtures: Path
    device: str = "cpu"
    precision: str = "32-true"
    clock: Clock = time.perf_counter

    def autocast(self) -> AbstractContextManager[Any]:
        """What Lightning does around a step of ours, for theirs."""
        mixed = self.precision == "bf16-mixed"
        return torch.autocast(self.device, dtype=torch.bfloat16) if mixed else nullcontext()


def write_theirs(folder: Path, shape: Shape, grid: int, fixtures: Path) -> None:
    """A LLaVA with random weights and its tokenizer, and a LoRA adapter with random weights in `adapter`."""
    write_tokenizer(folder, read_texts(fixtures).all, shape.vocabulary - SPARE)
    write_llava(folder, shape, grid, shape.image_id)
    with_lora(folder, shape.rank).save_pretrained(folder / "adapter")


def with_lora(folder: Path, rank: int) -> Any:
    """Their model with a new LoRA, whose second factors are not zero: so that both sides of it count."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlavaForConditionalGeneration

    model: Any = LlavaForConditionalGeneration.from_pretrained(folder, attn_implementation="sdpa")
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=rf".*language_model.*\.({'|'.join(LINEARS)})")
    tuned: Any = get_peft_model(model, config)
    for name, parameter in tuned.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(parameter, std=0.02)
    return tuned


def load_theirs(folder: Path) -> Any:
    """Their model; LoRA and projector learn."""
    from peft import PeftModel
    from transformers import LlavaForConditionalGeneration

    base: Any = LlavaForConditionalGeneration.from_pretrained(folder, attn_implementation="sdpa")
    model: Any = PeftModel.from_pretrained(base, folder / "adapter", is_trainable=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name or ".multi_modal_projector." in name)
    return model.train()


def load_ours(folder: Path) -> Bundle:
    """The same as a bundle. Layers of the tower above the one that is read are let go, as in our recipes."""
    whole = import_model(folder)
    tree = whole.recipe.to_dict()
    tree["model"]["encoders"]["image"]["pooled"] = "cls"
    tuner = {"name": "lora", "path": str(folder / "adapter"), "match": [f"*.{name}" for name in LINEARS]}
    recipe = Recipe.from_dict({**tree, "model": {**tree["model"], "tuners": [tuner]}})
    model, tensors = recipe.build(training=False), whole.model.state_dict()
    model.load_state_dict({name: tensors.get(name, own) for name, own in model.state_dict().items()})
    backbone: Any = model.backbone
    if backbone.vocab_size != len(backbone.lm.get_input_embeddings().weight):
        raise ValueError(f"ours has {backbone.vocab_size} rows, theirs {len(backbone.lm.lm_head.weight)}: mend SPARE")
    apply_learns(model, LEARNS, "learns")
    return Bundle(recipe, model.train())


def their_batch(examples: Sequence[Example], image_id: int) -> dict[str, Tensor]:
    """What their processor makes of the samples: rows padded to the longest, the picture's string at its places."""
    items = [item for example in examples for item in example.media.get("image", ())]
    rows = [torch.tensor(example.input_ids) for example in examples]
    for row, example in zip(rows, examples, strict=True):
        for item in example.media.get("image", ()):
            row[list(item.slots)] = image_id
    pad = torch.nn.utils.rnn.pad_sequence
    lengths = torch.tensor([len(row) for row in rows])
    labels = [torch.tensor(example.labels) for example in examples]
    pictures = {"pixel_values": torch.stack([item.values[0] for item in items])} if items else {}  # type: ignore[index]
    return {
        "input_ids": pad(rows, batch_first=True),
        "labels": pad(labels, batch_first=True, padding_value=-100),
        "attention_mask": (torch.arange(int(lengths.max())) < lengths[:, None]).long(),
        **pictures,
    }


class PlainLoop:
    """Their model in a loop: forward, backward, clipping, AdamW."""

    def __init__(self, model: Any, setting: Setting) -> None:
        self.model, self.setting = model.to(setting.device), setting
        self.learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.learning, lr=RATE, weight_decay=0.0)

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Of a batch on any device."""
        moved = {name: tensor.to(self.setting.device) for name, tensor in batch.items()}
        with self.setting.autocast():
            return self.model(**moved, use_cache=False).loss

    def step(self, batch: Mapping[str, Tensor]) -> None:
        """One step over a batch."""
        self.optimizer.zero_grad()
        loss = self.loss(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.learning, 1.0)
        self.optimizer.step()
        loss.item()  # as ours does, for its log


def our_loss(model: Any, batch: Batch, setting: Setting) -> Tensor:
    """The mean that our loop minimises."""
    with setting.autocast():
        return model(batch.to(setting.device)).total
