"""A U-Net of diffusers that is told more than text: a source picture, a second sequence, residuals."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmunify.errors import UserError
from mmunify.layers.denoising import Known

Trains = Literal["keys_values", "cross_keys_values", "all", "none"]
"""What of a U-Net learns: keys and values of all attentions (SEED-X), of the cross-attentions, all of it, nothing."""

KEYS_VALUES = {"keys_values": (".to_k.", ".to_v."), "cross_keys_values": (".attn2.to_k.", ".attn2.to_v.")}
BESIDE = ("beside", "source")
"""What is told as channels beside the sample, in this order."""

SIZES = 6
"""Numbers that SDXL is told of sizes: original height and width, top and left of the crop, target height and width."""


class ConditionedUNet(nn.Module):
    """UNet2DConditionModel of any layout (SD 1.5, SD 2, SDXL).

    What it is told (`Known`): "states" [K Q C] for the cross-attention; optionally "mask" [K Q] (1 = real), "pooled"
    [K P] with "sizes" [K 6] (SDXL), "beside" and "source" [K c h w] beside the sample, "residual" [K D h w] behind the
    first convolution, "picture" [K Q C] for decoupled keys and values.

    Args:
        network: UNet2DConditionModel.
        channels: of the sample.
        extra: input channels beside it: new ones start at zero, so that at first they change nothing.
        decoupled: whether every cross-attention gets keys and values of its own for "picture" (IP-Adapter,
            https://arxiv.org/abs/2308.06721); they start as copies of those for text.

    Raises:
        UserError: a network whose number of input channels is neither.
    """

    def __init__(self, network: nn.Module, channels: int, extra: int = 0, decoupled: bool = False) -> None:
        super().__init__()
        self.network: Any = network
        self.decoupled = decoupled
        config = self.network.config
        if config.in_channels == channels and extra:
            widen_input(self.network, extra)
        elif config.in_channels != channels + extra:
            raise UserError(
                f"the U-Net reads {config.in_channels} channels; latents of {channels} and {extra} more were "
                f"expected (a source picture has as many channels as the latents)"
            )
        if decoupled:
            decouple_attention(self.network)

    @property
    def states_dim(self) -> int:
        """Width of the cross-attention's sequence."""
        return int(self.network.config.cross_attention_dim)

    @property
    def pooled_dim(self) -> int | None:
        """Width of SDXL's pooled vector; None for other layouts."""
        config = self.network.config
        if config.addition_embed_type != "text_time":
            return None
        return int(config.projection_class_embeddings_input_dim - SIZES * config.addition_time_embed_dim)

    @property
    def channels(self) -> int:
        """Behind the first convolution."""
        return int(self.network.config.block_out_channels[0])

    def forward(
        self, sample: Float[Tensor, "K c h w"], time: Float[Tensor, "K"] | Tensor, known: Known
    ) -> Float[Tensor, "K _ h w"]:
        """What the network answers for a noisy sample."""
        shown = torch.cat([sample, *(known[name].to(sample.dtype) for name in BESIDE if name in known)], dim=1)
        states: Any = known.get("states")
        if self.decoupled:
            states = (states, [known["picture"]])
        with _added_behind(self.network.conv_in, known.get("residual")):
            return self.network(
                shown,
                time,
                encoder_hidden_states=states,
                encoder_attention_mask=known.get("mask"),
                added_cond_kwargs=self._added(known),
                return_dict=False,
            )[0]

    def learn(self, trains: Trains) -> None:
        """Let the chosen parameters learn and freeze the others; decoupled keys and values always learn.

        SEED-X' public code freezes the U-Net and hands its keys and values to the optimiser without letting them
        require a gradient again: they never move. Here they do.
        """
        for name, parameter in self.network.named_parameters():
            chosen = trains == "all" or any(each in name for each in KEYS_VALUES.get(trains, ()))
            parameter.requires_grad_(chosen or "_ip." in name)

    def _added(self, known: Known) -> dict[str, Tensor] | None:
        if self.pooled_dim is None:
            return None
        return {"text_embeds": known["pooled"], "time_ids": known["sizes"]}


def picture_sizes(height: int, width: int, like: Float[Tensor, "K *shape"]) -> Float[Tensor, "K 6"]:
    """What SDXL is told of whole pictures that are drawn at the size they had."""
    return like.new_tensor([height, width, 0, 0, height, width]).expand(len(like), -1)


def widen_input(network: Any, extra: int) -> None:
    """Give the first convolution `extra` input channels with weights of zero; weights and bias of the others stay."""
    old = network.conv_in
    new = nn.Conv2d(
        old.in_channels + extra, old.out_channels, old.kernel_size, old.stride, old.padding, bias=old.bias is not None
    ).to(old.weight)
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, : old.in_channels] = old.weight
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    network.conv_in = new
    network.register_to_config(in_channels=old.in_channels + extra)


def decouple_attention(network: nn.Module) -> None:
    """Second keys and values in every cross-attention, for a picture's sequence."""
    from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0

    for name, attention in network.named_modules():
        if not name.endswith("attn2"):
            continue
        keys: Any = attention.to_k
        second = IPAdapterAttnProcessor2_0(keys.out_features, keys.in_features, num_tokens=(1,), scale=1.0)
        with torch.no_grad():
            second.to_k_ip[0].weight.copy_(keys.weight)  # type: ignore[union-attr]
            second.to_v_ip[0].weight.copy_(attention.to_v.weight)  # type: ignore[union-attr]
        attention.set_processor(second.to(keys.weight))  # type: ignore[operator]


@contextmanager
def picture_scale(network: nn.Module, scale: float) -> Iterator[None]:
    """Inside, the second attention counts `scale`; 0 leaves the network as its text alone drives it."""
    seconds: list[Any] = [module for module in network.modules() if hasattr(module, "to_k_ip")]
    before = [second.scale for second in seconds]
    for second in seconds:
        second.scale = [scale]
    try:
        yield
    finally:
        for second, old in zip(seconds, before, strict=True):
            second.scale = old


@contextmanager
def _added_behind(layer: nn.Module, residual: Tensor | None) -> Iterator[None]:
    """Inside, the layer's answer has `residual` added."""
    if residual is None:
        yield
        return

    def add(module: nn.Module, inputs: tuple[Tensor, ...], answer: Tensor) -> Tensor:
        return answer + residual

    handle = layer.register_forward_hook(add)  # type: ignore[arg-type]
    try:
        yield
    finally:
        handle.remove()
