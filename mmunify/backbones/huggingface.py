"""Any Hugging Face causal language model as a backbone that reads embeddings and answers with hidden states."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from mmunify.backbones._documents import find_documents, register_kernel
from mmunify.errors import CheckpointError, UserError
from mmunify.layers.joined_linear import joined_linear
from mmunify.layers.weights import quiet_loading
from mmunify.parts import Backbone
from mmunify.registry import BACKBONES
from mmunify.types import Attention, Hidden


@BACKBONES.register("huggingface")
class HuggingFaceBackbone(Backbone):
    """A causal LM of transformers, by hub id or folder, or random from an inline config.

    The logits are never computed for a whole sequence: heads call `unembed` where they are supervised.
    Rows of added tokens are one parameter per token group (`new_rows.<group>`), apart from the old table, so that
    a stage can train them without touching (or decaying) the old rows.

    Args:
        path: hub id or folder written by `save_pretrained`, with the tokenizer beside it.
        config: an inline configuration (`{model_type: llama, hidden_size: ...}`): random weights, no network; with a
            path, it describes the model where no weights are read (on the meta device).
        tokenizer: hub id or folder, where it is not beside `path`.
        dtype: of the weights: "float32", "bfloat16", ...
        kernel: transformers' `attn_implementation`.
        revision: of the hub repository.
        trust_remote_code: run code from the hub repository; off unless the user asks for it.

    Raises:
        UserError: neither path nor config, a model that isn't a decoder, or a tokenizer with more entries than rows.
        CheckpointError: the path can't be loaded.
    """

    lm: Any

    def __init__(
        self,
        path: str | None = None,
        config: dict | None = None,
        tokenizer: str | None = None,
        dtype: str = "float32",
        kernel: str = "sdpa",
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__()
        hub = {"revision": revision, "trust_remote_code": trust_remote_code}
        self.lm = _load_lm(path, config, getattr(torch, dtype), kernel, hub)
        self.tokenizer = _load_tokenizer(tokenizer or path, hub)
        self.external = path
        text_config = self.lm.config.get_text_config()
        self.dim: int = text_config.hidden_size
        self.num_layers: int = text_config.num_hidden_layers
        self.num_old_rows: int = _num_rows(self.tokenizer, self.lm.get_input_embeddings().weight)
        self.new_rows = nn.ParameterDict()
        self.new_output_rows = nn.ParameterDict()
        # A 4-D mask silently switches a sliding window off, and a recurrent state ignores every mask: such models take
        # plain causal rows alone.
        is_plain = _slides(text_config) or getattr(self.lm, "_is_stateful", False)
        self.supports = frozenset({"cache"} if is_plain else {"cache", "packed", "full_attention"})
        self._by_document = kernel == "sdpa" and not is_plain and self.lm._can_set_attn_implementation()
        if self._by_document:
            self.lm.set_attn_implementation(register_kernel())

    @property
    def vocab_size(self) -> int:
        """Old and new rows together; every id is below it."""
        return self.num_old_rows + sum(len(rows) for rows in self.new_rows.values())

    @property
    def is_tied(self) -> bool:
        """Whether input and output tables are the same parameter."""
        return self.lm.get_input_embeddings().weight is self.lm.get_output_embeddings().weight

    def add_tokens(self, groups: Mapping[str, Sequence[str]]) -> None:
        """Add the strings that the tokenizer lacks; rows start at the mean of the old ones, with a little noise.

        Args:
            groups: name of the group -> strings. Strings that the vocabulary has keep their old rows.
        """
        for group, strings in groups.items():
            known = self.tokenizer.get_vocab()
            missing = [string for string in dict.fromkeys(strings) if string not in known]
            if not missing:
                continue
            self.tokenizer.add_tokens(missing, special_tokens=False)
            self.new_rows[group] = _new_rows(self.lm.get_input_embeddings().weight, self.num_old_rows, len(missing))
            if not self.is_tied:
                table = self.lm.get_output_embeddings().weight
                self.new_output_rows[group] = _new_rows(table, self.num_old_rows, len(missing))

    def embed(self, ids: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows D"]:
        """Rows of the input table, old or new.

        Raises:
            UserError: an id outside the vocabulary.
        """
        if ids.numel() and int(ids.max()) >= self.vocab_size:
            raise UserError(f"token id {int(ids.max())} is outside the vocabulary of {self.vocab_size} rows")
        old = self.lm.get_input_embeddings()(ids.clamp(max=self.num_old_rows - 1))
        if not self.new_rows:
            return old
        new = F.embedding((ids - self.num_old_rows).clamp(min=0), torch.cat(list(self.new_rows.values())))
        return torch.where((ids >= self.num_old_rows).unsqueeze(-1), new.to(old.dtype), old)

    def unembed(self, states: Float[Tensor, "n D"], rows: Int[Tensor, "k"] | None = None) -> Float[Tensor, "n v"]:
        """Logits of states, over the whole vocabulary or over `rows`."""
        head = self.lm.get_output_embeddings()
        new = self.new_rows if self.is_tied else self.new_output_rows
        old = head.weight[: self.num_old_rows]
        tables = [old, *(part.to(old.dtype) for part in new.values())]
        bias = getattr(head, "bias", None)
        if bias is not None:
            bias = F.pad(bias[: self.num_old_rows], (0, sum(map(len, tables)) - len(old)))
        if rows is not None:
            tables, bias = [torch.cat(tables)[rows]], None if bias is None else bias[rows]
        if len(tables) == 1:
            return self._scale(F.linear(states.to(old.dtype), tables[0], bias))
        logits = joined_linear(states.to(old.dtype), tables)
        return self._scale(logits if bias is None else logits + bias)

    def forward(
        self,
        inputs_embeds: Float[Tensor, "B T D"],
        attention: Attention,
        position_ids: Int[Tensor, "B T"],
        layers: Sequence[int] = (),
        cache: Any = None,
    ) -> Hidden:
        """Run the layers: [B T D] -> [B T D] after the final norm.

        Args:
            inputs_embeds: [B T D].
            attention: who sees whom; with a cache it covers cached and new positions.
            position_ids: [B T] of the new positions.
            layers: hidden states to return beside the last (0 = the embeddings).
            cache: a transformers cache to read and extend, or None.
        """
        is_plain = cache is None and attention.is_plain
        documents = None if is_plain or cache is not None or not self._by_document else find_documents(attention)
        output = self.lm.base_model(
            inputs_embeds=inputs_embeds,
            attention_mask=None if documents else self._mask(attention, inputs_embeds, is_plain),
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=cache is not None,
            output_hidden_states=bool(layers),
            **({"documents": documents} if documents else {}),
        )
        if documents is not None and documents.calls < self.num_layers:  # a model that keeps arguments from its layers
            self._by_document = False
            self.lm.set_attn_implementation("sdpa")
            return self(inputs_embeds, attention, position_ids, layers)
        states = output.hidden_states or ()
        chosen = {index: states[index] for index in layers}
        return Hidden(inputs=inputs_embeds, last=output.last_hidden_state, layers=chosen, cache=cache)

    def _mask(
        self, attention: Attention, inputs_embeds: Float[Tensor, "B T D"], is_plain: bool
    ) -> Shaped[Tensor, "B ..."] | None:
        """What the layers are told of who sees whom; nothing where their kernel is causal anyway.

        Other kernels get plain rows' padding: without any mask, transformers takes positions that don't count up
        (padding, slots that share one) for the beginning of another document.
        """
        if not is_plain:
            return additive_mask(attention, inputs_embeds.shape[1], inputs_embeds.dtype)
        return None if self._by_document else attention.valid.long()

    def new_cache(self) -> Any:
        """An empty key/value cache."""
        from transformers import DynamicCache

        return DynamicCache(config=self.lm.config)

    def save_folder(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        """Write an ordinary transformers folder with its tokenizer; new rows become rows of the tables."""
        lm = copy.deepcopy(self.lm)
        lm.resize_token_embeddings(self.vocab_size, mean_resizing=False)
        tables = [(lm.get_input_embeddings(), self.new_rows)]
        tables += [] if self.is_tied else [(lm.get_output_embeddings(), self.new_output_rows)]
        with torch.no_grad():
            for table, groups in tables:
                if groups:
                    table.weight[self.num_old_rows :] = torch.cat(list(groups.values()))
        lm.to(dtype).save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        return Path(folder)

    def _scale(self, logits: Tensor) -> Tensor:
        """What some families do to their logits between the table and the softmax."""
        config = self.lm.config.get_text_config()
        logits = logits * (getattr(config, "logit_scale", None) or 1.0)  # Cohere
        logits = logits / (getattr(config, "logits_scaling", None) or 1.0)  # Granite
        cap = getattr(config, "final_logit_softcapping", None)  # Gemma
        return torch.tanh(logits / cap) * cap if cap else logits


def additive_mask(attention: Attention, num_queries: int, dtype: torch.dtype) -> Float[Tensor, "B 1 Q K"]:
    """0 where a query may look, the lowest number elsewhere; the queries are the last `num_queries` positions.

    A position sees earlier valid positions of its own document, the whole of its segment where that is bidirectional,
    and always itself (a padding query that saw nothing would turn into NaN).
    """
    allowed = _allowed(attention, num_queries)
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return mask.masked_fill(~allowed, torch.finfo(dtype).min).unsqueeze(1)


def _allowed(attention: Attention, num_queries: int) -> Bool[Tensor, "B Q K"]:
    length = attention.valid.shape[1]
    columns = torch.arange(length, device=attention.valid.device)
    queries = columns[length - num_queries :]
    causal = columns[None, None, :] <= queries[None, :, None]
    segment, full = attention.segment, attention.full
    inside = (segment[:, None, :] == segment[:, queries, None]) & full[:, None, :] & full[:, queries, None]
    same = attention.document[:, None, :] == attention.document[:, queries, None]
    allowed = (causal | inside) & same & attention.valid[:, None, :]
    return allowed | (columns[None, None, :] == queries[None, :, None])


def _num_rows(tokenizer: Any, table: Float[Tensor, "rows D"]) -> int:
    """Rows that the vocabulary uses; a table may be padded behind them, but not be shorter."""
    if tokenizer is None:
        return len(table)
    if len(tokenizer) > len(table):
        raise UserError(
            f"the tokenizer has {len(tokenizer)} entries and the backbone's table {len(table)} rows; give the backbone "
            f"vocab_size: {len(tokenizer)} or more, or the tokenizer that belongs to it"
        )
    return len(tokenizer)


def _new_rows(table: Float[Tensor, "rows D"], num_old: int, num_new: int) -> nn.Parameter:
    old = table.detach()[:num_old]
    if old.is_meta:
        return nn.Parameter(old.new_empty(num_new, old.shape[1]))
    noise = torch.randn(num_new, old.shape[1], dtype=torch.float32) * old.float().std() * 0.1
    return nn.Parameter((old.float().mean(0) + noise).to(old.dtype))


def _slides(config: Any) -> bool:
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        return getattr(config, "sliding_window", None) is not None
    return any(kind != "full_attention" for kind in kinds)


def _load_lm(path: str | None, config: dict | None, dtype: torch.dtype, kernel: str, hub: dict) -> nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    on_meta = torch.get_default_device().type == "meta"
    if config is not None and (path is None or on_meta):
        settings = dict(config)
        made = AutoConfig.for_model(settings.pop("model_type"), **settings)
        return AutoModelForCausalLM.from_config(made, dtype=dtype, attn_implementation=kernel)
    if path is None:
        raise UserError(
            "a huggingface backbone needs path: (hub id or folder) or config: {model_type: ...}; got neither"
        )
    quiet_loading(path)
    try:
        if on_meta:
            made = AutoConfig.from_pretrained(path, **hub)
            return AutoModelForCausalLM.from_config(made, dtype=dtype, attn_implementation=kernel)
        return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation=kernel, **hub)
    except ValueError as error:
        raise UserError(f"{path!r} is not a causal language model that transformers knows: {error}") from error
    except Exception as error:  # OSError, SafetensorError, ...: all mean that the files can't be used
        raise CheckpointError(f"the backbone {path!r} cannot be loaded: {error}") from error


def _load_tokenizer(path: str | None, hub: dict) -> Any:
    from transformers import AutoTokenizer

    on_meta = torch.get_default_device().type == "meta"
    if path is None or (on_meta and not Path(path).is_dir()):
        return None  # sizes need no tokenizer, and `check` needs no network
    try:
        return AutoTokenizer.from_pretrained(path, **hub)
    except Exception as error:
        raise CheckpointError(f"the tokenizer of {path!r} cannot be loaded: {error}") from error
