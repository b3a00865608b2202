"""UnifiedModel: embed -> backbone -> heads. This file and `composer.py` are all that joins parts.

Letters: see `mmunify.types`.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmunify.errors import PlacementError
from mmunify.experts.low_rank._context import TokenContext, use_tokens
from mmunify.experts.low_rank._routing import collect_aux
from mmunify.layers.idle import touch
from mmunify.layers.modes import set_modes
from mmunify.links import Link
from mmunify.parts import Adapter, Backbone, Context, Detokenizer, Draw, Encoder, Head, Tuner
from mmunify.tokens import TokenRegistry
from mmunify.tokens.slots import strings
from mmunify.types import (
    Batch,
    Embeds,
    Features,
    HeadOutput,
    Hidden,
    MediaBatch,
    ModelSpec,
    NodeSpec,
    Preprocess,
    SlotSpec,
    StepReport,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """How a node is joined: the kind of medium it handles and the node that it reads ("encoders.image")."""

    kind: str
    source: str


def first_of_kind(encoders: Iterable[str], wiring: Mapping[str, Wiring], kind: str) -> str:
    """The encoder node by which outputs name a medium of a kind that they start from; "" = there is none."""
    return next((name for name in encoders if wiring[f"encoders.{name}"].kind == kind), "")


class UnifiedModel(nn.Module):
    """A unified multimodal model made of built parts. Most users call `compose` or a recipe's `build`.

    Args:
        encoders, adapters, heads, detokenizers: node name -> built part.
        backbone: the language model; None when only an encoder or a de-tokenizer trains.
        tuners: low-rank tuners that were applied, for the record.
        wiring: "encoders.image" -> how that node is joined.
        weights: loss weight by head node ("text") or de-tokenizer ("detokenizers.image"); a head of weight 0 isn't run.
        tokens: the token registry.

    Attributes:
        on_features: told of the node, its media and their features whenever the cache asks for them.
    """

    on_features: Callable[[str, MediaBatch, Features], None] | None = None

    def __init__(
        self,
        *,
        encoders: Mapping[str, Encoder],
        adapters: Mapping[str, Adapter],
        backbone: Backbone | None,
        heads: Mapping[str, Head],
        detokenizers: Mapping[str, Detokenizer],
        wiring: Mapping[str, Wiring],
        tuners: Sequence[Tuner] = (),
        weights: Mapping[str, float] | None = None,
        tokens: TokenRegistry | None = None,
    ) -> None:
        super().__init__()
        self.encoders, self.adapters = nn.ModuleDict(encoders), nn.ModuleDict(adapters)
        self.backbone = backbone
        self.heads, self.detokenizers = nn.ModuleDict(heads), nn.ModuleDict(detokenizers)
        self.wiring, self.tuners = dict(wiring), list(tuners)
        self.weights: dict[str, float] = dict(weights or {})
        self.tokens = _add_strings(tokens or TokenRegistry(), heads, backbone)

    # --------------------------------------------------------------------------------------- plain data

    def spec(self) -> ModelSpec:
        """All that the data side needs to know of the model."""
        media = {node: self._media_spec(node) for node in self.encoders}
        outputs = {node: self._output_spec(node) for node in self.heads if self.wiring[f"heads.{node}"].kind != "text"}
        links = [self.link(node) for node in self.detokenizers]
        media |= {link.name: spec for link in links if (spec := link.media_spec()) is not None}
        outputs |= {link.name: spec for link in links if (spec := link.output_spec()) is not None}
        return ModelSpec(media=media, outputs=outputs)

    def _media_spec(self, node: str) -> NodeSpec:
        encoder: Encoder = self.encoders[node]  # type: ignore[assignment]
        kind = self.wiring[f"encoders.{node}"].kind
        readers: list[Adapter] = [
            adapter  # type: ignore[misc]
            for name, adapter in self.adapters.items()
            if self.wiring[f"adapters.{name}"].source == f"encoders.{node}"
        ]
        slot = None
        if readers and self.backbone is not None:
            opens, closes = ("", "") if readers[0].bare else self.tokens.pair(kind)
            layout = readers[0].layout(encoder.layout_of(kind))
            slot = SlotSpec(opens=opens, closes=closes, layout=layout)
        side_text = readers[0].side_text if readers else None
        return NodeSpec(kind=kind, slot=slot, preprocess=encoder.preprocess_of(kind), side_text=side_text)

    def _output_spec(self, node: str) -> NodeSpec:
        head: Head = self.heads[node]  # type: ignore[assignment]
        preprocess: Preprocess | None = self.encoders[head.target].preprocess if head.target else None  # type: ignore[assignment]
        if head.features is not None and head.features in self.encoders:
            preprocess = head.target_preprocess(self.encoders[head.features]) or preprocess  # type: ignore[arg-type]
        return NodeSpec(kind=self.wiring[f"heads.{node}"].kind, slot=head.spec, preprocess=preprocess)

    @property
    def layers(self) -> tuple[int, ...]:
        """Hidden states that heads ask for; -1 = the last."""
        return tuple(sorted({layer for head in self.heads.values() for layer in head.layers}))  # type: ignore[union-attr]

    @property
    def modalities(self) -> list[str]:
        """Nodes in the order of their modality ids: node i has i + 1, and text has 0."""
        return [*(f"encoders.{name}" for name in self.encoders), *(f"heads.{name}" for name in self.heads)]

    # --------------------------------------------------------------------------------------- forward

    def forward(self, batch: Batch) -> StepReport:
        """All losses of a batch, as sums with counts: (B, T) ids and packed media -> StepReport."""
        features = self.encode(batch)
        hidden = None
        if self.backbone is not None:
            with use_tokens(TokenContext.of(batch, self.modalities)):
                inputs_embeds = self.embed(batch, features)
                layers = [layer for layer in self.layers if layer != -1]
                hidden = self.backbone(inputs_embeds, batch.attention, batch.position_ids, layers=layers)
                hidden = replace(hidden, aux={**hidden.aux, **collect_aux(self.backbone)})
        outputs = {name: out for name in self.heads if (out := self._run_head(name, hidden, batch, features))}
        outputs |= self._run_detokenizers(batch, features, outputs)
        return self._report(outputs, hidden, self._idle_encoders(batch))

    def counts(self, batch: Batch) -> dict[str, Tensor] | None:
        """What divides each loss of `forward`, without running it; None where a part can't tell before it runs."""
        if any(self._draws(node) for node in self.detokenizers):
            return None
        told = {node: head.counts(batch) for node, head in self.heads.items() if self.weights.get(node, 1.0)}  # type: ignore[operator]
        if None in told.values():
            return None
        return {f"{node}/{name}": count for node, counts in told.items() for name, count in counts.items()}

    def encode(self, batch: Batch) -> dict[str, Features]:
        """Features of the batch's media by encoder node; a node without items is absent."""
        features: dict[str, Features] = {}
        for node, encoder in self.encoders.items():
            media = batch.media.get(node)
            if media is None:
                continue
            if media.features is not None:
                features[node] = media.features
                continue
            features[node] = self._encode(encoder, media.values, self._context(node, media, batch, features))  # type: ignore[arg-type]
            if self.on_features is not None and any(media.keys):
                self.on_features(node, media, features[node])
        return features

    def embed(self, batch: Batch, features: Mapping[str, Features]) -> Float[Tensor, "B T D"]:
        """Token rows, with adapter embeddings in the input slots and head inputs in the output slots."""
        assert self.backbone is not None
        embeds = self.backbone.embed(batch.input_ids)
        untouched = embeds.new_zeros(())
        for node, adapter in self.adapters.items():
            source = self.wiring[f"adapters.{node}"].source.removeprefix("encoders.")
            if source in features:
                made = adapter(features[source], self._context(source, batch.media[source], batch, features))
                slots = batch.media[source].slots
                embeds = place(embeds, slots, made, f"encoders.{source}", batch) if slots is not None else embeds
            elif self.training and _learns(adapter):
                blank, kind = self._blank(source, adapter, embeds), self.wiring[f"adapters.{node}"].kind
                untouched = untouched + adapter(blank, Context(kind=kind)).tokens.sum() * 0
        for node, head in self.heads.items():
            embeds, extra = self._embed_outputs(node, head, embeds, batch)  # type: ignore[arg-type]
            untouched = untouched + extra
        return embeds + untouched

    def _embed_outputs(self, node: str, head: Head, embeds: Tensor, batch: Batch) -> tuple[Tensor, Tensor | float]:
        outputs = batch.outputs.get(node)
        if outputs is not None and outputs.slots is not None:
            made = head.slot_inputs(outputs, None, None)
            if made is not None:
                return place(embeds, outputs.slots, made, f"heads.{node}", batch), 0.0
        if self.training and _learns(head):
            return embeds, sum(parameter.sum() * 0 for parameter in head.parameters() if parameter.requires_grad)
        return embeds, 0.0

    # --------------------------------------------------------------------------------------- pieces

    def _idle_encoders(self, batch: Batch) -> Tensor | float:
        """Zero, with a zero gradient for every encoder that learns and has no medium in this batch."""
        zero: Tensor | float = 0.0
        for node, encoder in self.encoders.items():
            if self.training and node not in batch.media and _learns(encoder):
                zero = zero + touch(self._blank_pass(node, encoder), [encoder])
        return zero

    def _blank_pass(self, node: str, encoder: nn.Module) -> Float[Tensor, ""]:
        """Zero: what an encoder of still pictures says of an empty one, times zero; the others are not run."""
        weight = next(encoder.parameters())
        preprocess: Preprocess = encoder.preprocess  # type: ignore[assignment]
        if type(preprocess) is not Preprocess or preprocess.kind != "image":
            return weight.new_zeros(())
        values = weight.new_zeros(1, 1, len(preprocess.mean), *preprocess.size)
        extent = torch.tensor([preprocess.size[::-1]], device=weight.device)
        return encoder(values, Context(kind=self.wiring[f"encoders.{node}"].kind, extent=extent)).tokens.sum() * 0

    def _encode(self, encoder: nn.Module, values: Tensor, context: Context) -> Features:
        """A frozen encoder builds no graph: nothing that learns lies upstream of a medium."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and _learns(encoder)):
            return encoder(values, context)

    def _context(self, node: str, media: MediaBatch, batch: Batch, features: Mapping[str, Features]) -> Context:
        wiring = self.wiring[f"encoders.{node}"]
        source = wiring.source.removeprefix("encoders.")
        return Context(
            kind=wiring.kind,
            extent=media.extent,
            document=media.document,
            task=batch.task,
            side_ids=media.side_ids,
            side_mask=media.side_mask,
            source=features.get(source) if source != node else None,
        )

    def _blank(self, node: str, adapter: nn.Module, like: Tensor) -> Features:
        """Zero features of the smallest layout, so that a learning adapter takes part in a step without media."""
        encoder: Encoder = self.encoders[node]  # type: ignore[assignment]
        layout = encoder.layout_of(self.wiring[f"encoders.{node}"].kind)
        grids = {run.grid for run in layout.runs if run.slots}
        grid = grids.pop() if len(grids) == 1 else None
        zeros = like.new_zeros(1, layout.num_slots, encoder.out_dim)
        needs: frozenset[str] = adapter.needs  # type: ignore[assignment]
        layers = {int(need.removeprefix("layers:")): zeros for need in needs if need.startswith("layers:")}
        return Features(tokens=zeros, grid=grid, pooled=zeros[:, 0], layers=layers)

    def _run_head(
        self, name: str, hidden: Hidden | None, batch: Batch, features: Mapping[str, Features]
    ) -> HeadOutput | None:
        head = self.heads[name]
        if self.weights.get(name, 1.0) == 0:
            return None
        outputs = batch.outputs.get(name)
        available = dict(features)
        if head.target and head.encodes_target and outputs is not None and isinstance(outputs.target, Tensor):
            encoder = self.encoders[head.target]  # type: ignore[index]
            with torch.no_grad():
                available["target"] = encoder(outputs.target.unsqueeze(1), Context(document=outputs.document))
        unembed = self.backbone.unembed if self.backbone is not None else None
        return head(hidden, batch, available, unembed)

    def _run_detokenizers(
        self, batch: Batch, features: Mapping[str, Features], heads: Mapping[str, HeadOutput]
    ) -> dict[str, HeadOutput]:
        """De-tokenizers that learn, alone (from an encoder's features) or behind a head, or that teach one."""
        made = {}
        for node, detokenizer in self.detokenizers.items():
            if not self._draws(node):
                continue
            name = f"detokenizers.{node}"
            link = self.link(node)
            like = next(detokenizer.parameters()).new_zeros((), device=batch.input_ids.device)
            drawn = link.items(batch, features, heads) or link.nothing(like)
            keys = [batch.keys[i] for i in drawn.document.tolist()]
            draw = Draw(seed=batch.seed, step=batch.step, keys=keys, part=name)
            made[name] = detokenizer.loss(drawn.target, drawn.condition, draw)  # type: ignore[operator]
        return made

    def _draws(self, node: str) -> bool:
        """Whether a de-tokenizer takes part in the loss: it learns, or has a weight and teaches its head."""
        name = f"detokenizers.{node}"
        teaches = name in self.weights and self.wiring[name].source.startswith("heads.")
        return self.training and self.weights.get(name, 1.0) != 0 and (teaches or _learns(self.detokenizers[node]))

    def link(self, node: str) -> Link:
        """A de-tokenizer with what it draws from."""
        name = f"detokenizers.{node}"
        side, _, source = self.wiring[name].source.partition(".")
        head: Head | None = self.heads[source] if side == "heads" else None  # type: ignore[assignment]
        kind = self.wiring.get(f"{side}.{source}", self.wiring[name]).kind
        like = source if head is None else head.target
        eye = first_of_kind(self.encoders, self.wiring, kind)
        return Link(
            name=name,
            source=source,
            kind=kind,
            detokenizer=self.detokenizers[node],  # type: ignore[arg-type]
            head=head,
            encoder=dict(self.encoders.items()).get(str(like)),  # type: ignore[arg-type]
            eye=eye,
            looks=self.encoders[eye] if eye else None,  # type: ignore[arg-type]
        )

    def _report(self, outputs: Mapping[str, HeadOutput], hidden: Hidden | None, idle: Tensor | float) -> StepReport:
        losses = {f"{node}/{name}": loss + idle for node, out in outputs.items() for name, loss in out.losses.items()}
        counts = {f"{node}/{name}": count for node, out in outputs.items() for name, count in out.counts.items()}
        weights = {name: self.weights.get(name.split("/")[0], 1.0) for name in losses}
        aux = dict(hidden.aux) if hidden is not None else {}
        return StepReport(losses=losses, counts=counts, weights=weights, aux=aux, outputs=dict(outputs))

    def train(self, mode: bool = True) -> "UnifiedModel":
        """Train mode for modules that learn; frozen ones keep still (their dropout and batch statistics too)."""
        super().train(mode)
        if mode:
            set_modes(self)
        return self


def place(
    embeds: Float[Tensor, "B T D"], slots: Bool[Tensor, "B T"], items: Embeds, node: str, batch: Batch
) -> Float[Tensor, "B T D"]:
    """Put the items' embeddings into their slots, in row-major order.

    Raises:
        PlacementError: the numbers differ; the message carries both and the first sample's id.
    """
    tokens = items.tokens if items.mask is None else items.tokens[items.mask]
    tokens = tokens.reshape(-1, embeds.shape[-1])
    wanted = int(slots.sum())
    if len(tokens) != wanted:
        first = batch.sample_ids[0] if batch.sample_ids else "?"
        raise PlacementError(
            f"node {node!r} made {len(tokens)} embeddings for {wanted} slots (batch of {batch.batch_size}, "
            f"first sample {first!r}): the layout that data.encode used is not that of the part"
        )
    return embeds.masked_scatter(slots.unsqueeze(-1), tokens.to(embeds.dtype))


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _add_strings(tokens: TokenRegistry, heads: Mapping[str, Head], backbone: Backbone | None) -> TokenRegistry:
    """The registry with the strings of the heads' slots; new ones become rows of the backbone, a group per head."""
    for node, head in heads.items():
        own = strings(head.spec) if head.spec is not None else ()
        wanted = tokens.with_signals([*own, *head.strings])
        new = wanted.signals[len(tokens.signals) :]
        tokens = wanted
        if new and backbone is not None and backbone.tokenizer is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(zlib.crc32(f"strings/{node}".encode()))
                backbone.add_tokens({f"signals_{node}": new})
    return tokens
