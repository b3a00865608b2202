"""Checks of the contracts and tiny parts, for the tests of people who write their own parts.

    def test_my_adapter():
        check_adapter(MyAdapter(in_dim=24, out_dim=32), in_dim=24, out_dim=32)

Every check raises AssertionError with the numbers that disagree. The `tiny_*_folder` builders write models of a few
kilobytes in Hugging Face format, so that the code that loads real weights is the code under test.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmunify.parts import Adapter, Context, Detokenizer, Draw, Encoder
from mmunify.types import Condition, Features, HeadOutput, Layout, Preprocess

SPECIALS = ("<unk>", "<s>", "</s>", "<pad>")
TOLERANCE = 1e-5


# ------------------------------------------------------------------------------------------- contracts


def check_encoder(encoder: Encoder, values: Tensor | None = None) -> Features:
    """The contract of an encoder, on `values` or on random pictures of its own size.

    Checked: tokens are [M N E] with N of `layout` and E = `out_dim`; the grid has N cells; eval mode is deterministic;
    an item's tokens don't depend on the other items; a gradient reaches every parameter.

    Returns:
        The features, for further checks.
    """
    encoder.eval()
    values = picture_values(encoder.preprocess) if values is None else values
    context = Context(kind=encoder.preprocess.kind)
    features = encoder(values, context)
    slots = encoder.layout().num_slots
    _expect_shape("tokens", features.tokens, (len(values), slots, encoder.out_dim))
    _expect_grid(features.grid, slots)
    for index, states in features.layers.items():
        _expect_shape(f"layers[{index}]", states[..., 0], (len(values), states.shape[1]))
    _expect_close("a second pass in eval mode", encoder(values, context).tokens, features.tokens, tolerance=0.0)
    _expect_close("an item alone", encoder(values[:1], context).tokens, features.tokens[:1])
    pooled = [] if features.pooled is None else [features.pooled]
    _expect_gradients(encoder, [features.tokens, *pooled, *features.layers.values()])
    return features


def check_adapter(
    adapter: Adapter, in_dim: int, out_dim: int, grid: tuple[int, int] = (3, 4), num_items: int = 2
) -> None:
    """The contract of an adapter, on random features of `grid` with everything that it `needs`.

    Checked: embeddings are [M S D] with S of `layout` and D = `out_dim`; eval mode is deterministic; an item's
    embeddings don't depend on the other items, nor on tokens that are masked out; a gradient reaches every parameter.
    """
    adapter.eval()
    features = random_features(in_dim, grid, num_items, adapter.needs)
    slots = adapter.layout(Layout.of(grid[0] * grid[1], grid)).num_slots
    context = Context()
    embeds = adapter(features, context)
    _expect_shape("tokens", embeds.tokens, (num_items, slots, out_dim))
    _expect_close("a second pass in eval mode", adapter(features, context).tokens, embeds.tokens, tolerance=0.0)
    alone = adapter(_first(features), context)
    _expect_close("an item alone", alone.tokens, embeds.tokens[:1])
    _expect_gradients(adapter, [embeds.tokens])
    _expect_mask_respected(adapter, features)


def check_detokenizer(detokenizer: Detokenizer, condition: Condition) -> HeadOutput:
    """The contract of a de-tokenizer, on a condition of at least two items.

    Checked: pictures are [K 3 H W] in 0..1; the same seed gives the same pictures; every loss is a finite sum with a
    count, and the sum over K items is that of the items one by one; a gradient reaches every parameter.

    Returns:
        What `loss` answered, for further checks.
    """
    detokenizer.eval()
    num_items = len(condition.states)
    pictures = detokenizer.generate(condition, seed=0)
    height, width = detokenizer.preprocess.size if detokenizer.preprocess else tuple(pictures.shape[2:])
    _expect_shape("pictures", pictures, (num_items, 3, height, width))
    _expect(bool(((pictures >= 0) & (pictures <= 1)).all()), f"pictures leave 0..1: {pictures.min()}..{pictures.max()}")
    _expect_close("the same seed", detokenizer.generate(condition, seed=0), pictures, tolerance=0.0)
    target = torch.rand(pictures.shape, generator=torch.Generator().manual_seed(1))
    together = detokenizer.loss(target, condition, _draw(range(num_items)))
    names = (sorted(together.losses), sorted(together.counts))
    _expect(names[0] == names[1], f"losses {names[0]} and counts {names[1]} have different names")
    singles = [detokenizer.loss(target[i : i + 1], _condition_item(condition, i), _draw([i])) for i in range(num_items)]
    for name, loss in together.losses.items():
        one_by_one = torch.stack([single.losses[name] for single in singles]).sum()
        scale = max(1.0, float(loss.detach().abs()))
        _expect_close(f"loss {name!r} item by item", one_by_one, loss, TOLERANCE * scale)
    _expect_gradients(detokenizer, list(together.losses.values()))
    return together


def picture_values(preprocess: Preprocess, num_items: int = 2, seed: int = 0) -> Tensor:
    """Random still pictures (M, 1, C, H, W) of a part's own size."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_items, 1, len(preprocess.mean), *preprocess.size, generator=generator)


def random_features(
    dim: int, grid: tuple[int, int], num_items: int = 2, needs: frozenset[str] = frozenset(), seed: int = 0
) -> Features:
    """Features (M, N, E) of a raster, with the layers and the pooled vector that an adapter `needs`."""
    generator = torch.Generator().manual_seed(seed)
    num_tokens = grid[0] * grid[1]
    layers = [int(need.split(":")[1]) for need in needs if need.startswith("layers:")]
    return Features(
        tokens=torch.randn(num_items, num_tokens, dim, generator=generator),
        grid=grid,
        pooled=torch.randn(num_items, dim, generator=generator) if "pooled" in needs else None,
        layers={index: torch.randn(num_items, num_tokens, dim, generator=generator) for index in layers},
    )


def _first(features: Features) -> Features:
    """Item 0 alone."""
    return replace(
        features,
        tokens=features.tokens[:1],
        mask=None if features.mask is None else features.mask[:1],
        pooled=None if features.pooled is None else features.pooled[:1],
        layers={index: states[:1] for index, states in features.layers.items()},
    )


def _condition_item(condition: Condition, item: int) -> Condition:
    def pick(value: Tensor | None) -> Tensor | None:
        return None if value is None else value[item : item + 1]

    return Condition(
        states=condition.states[item : item + 1],
        pooled=pick(condition.pooled),
        image=pick(condition.image),
        drop=pick(condition.drop),
    )


def _draw(keys: Sequence[int]) -> Draw:
    return Draw(seed=0, step=0, keys=keys, part="check")


def _expect_mask_respected(adapter: Adapter, features: Features) -> None:
    """Noise in masked tokens must not reach real embeddings."""
    mask = torch.ones(features.tokens.shape[:2], dtype=torch.bool)
    mask[:, -2:] = False
    noise = torch.where(mask[..., None], 0.0, 100.0)
    clean = adapter(replace(features, mask=mask), Context())
    noisy = adapter(replace(features, mask=mask, tokens=features.tokens + noise), Context())
    real = torch.ones(clean.tokens.shape[:2], dtype=torch.bool) if clean.mask is None else clean.mask
    _expect_close("noise in masked tokens", noisy.tokens[real], clean.tokens[real])


def _expect_gradients(module: nn.Module, answers: Sequence[Tensor]) -> None:
    """Back-propagate a random projection of the answers; every learning parameter must get a finite gradient."""
    module.zero_grad()
    generator = torch.Generator().manual_seed(2)
    terms = [(answer * torch.randn(answer.shape, generator=generator)).sum() for answer in answers]
    torch.stack(terms).sum().backward()
    gradients = {name: p.grad for name, p in module.named_parameters() if p.requires_grad}
    idle = [name for name, gradient in gradients.items() if gradient is None]
    _expect(not idle, f"no gradient reaches {len(idle)} of {len(gradients)} parameters: {idle[:5]}")
    wild = [name for name, gradient in gradients.items() if not torch.as_tensor(gradient).isfinite().all()]
    _expect(not wild, f"the gradient of {wild[:5]} is not finite")
    module.zero_grad()


def _expect_grid(grid: tuple[int, int] | None, slots: int) -> None:
    whole = grid is None or slots % (grid[0] * grid[1]) == 0  # the raster of one frame or tile, of which there are some
    _expect(whole, f"{slots} slots of the layout are no whole number of rasters of {grid}")


def _expect_shape(what: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    _expect(tuple(tensor.shape) == shape, f"{what}: shape {tuple(tensor.shape)}, promised {shape}")
    _expect(bool(tensor.isfinite().all()), f"{what}: not finite")


def _expect_close(what: str, got: Tensor, wanted: Tensor, tolerance: float = TOLERANCE) -> None:
    difference = float((got - wanted).detach().abs().max()) if got.numel() else 0.0
    _expect(difference <= tolerance, f"{what} changes the answer by {difference:.3g} (allowed {tolerance:.3g})")


def _expect(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)


# ------------------------------------------------------------------------------------------- tiny models


def tiny_llama_folder(
    folder: str | Path, *, dim: int = 32, depth: int = 2, num_heads: int = 4, words: Sequence[str] = (), seed: int = 0
) -> Path:
    """Write a random Llama and a byte-level tokenizer, as `save_pretrained` does.

    Args:
        folder: where to; made if missing.
        words: further vocabulary strings, one token each.
        seed: of the weights, which are drawn wide enough that the logits differ between tokens.

    Returns:
        The folder, for `AutoModelForCausalLM` and `AutoTokenizer`.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _byte_tokenizer(words)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=dim,
        intermediate_size=2 * dim,
        num_hidden_layers=depth,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    model: Any = randomize(LlamaForCausalLM(config), seed=seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def tiny_clip_folder(
    folder: str | Path, *, dim: int = 32, depth: int = 3, size: int = 32, patch: int = 8, seed: int = 0
) -> Path:
    """Write a random CLIP vision tower with its image processor, as `save_pretrained` does."""
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=dim,
        intermediate_size=2 * dim,
        num_hidden_layers=depth,
        num_attention_heads=4,
        image_size=size,
        patch_size=patch,
    )
    model: Any = randomize(CLIPVisionModel(config), seed=seed)
    model.save_pretrained(folder)
    processor = CLIPImageProcessor(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=[0.4, 0.5, 0.6],
        image_std=[0.2, 0.25, 0.3],
    )
    processor.save_pretrained(folder)
    return Path(folder)


def tiny_timm_folder(
    folder: str | Path,
    model: str = "xcit_nano_12_p8_224",
    *,
    dim: int = 32,
    depth: int = 2,
    size: int = 32,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Path:
    """Write a random XCiT or ViT of timm (a name that takes embed_dim, depth, num_heads, img_size) as a folder."""
    import timm

    from mmunify.encoders.timm import save_timm

    arguments: dict[str, Any] = {"embed_dim": dim, "depth": depth, "num_heads": 4, "img_size": size}
    tower = timm.create_model(model, num_classes=0, **arguments)
    return save_timm(randomize(tower, seed=seed), folder, dtype=dtype)


def randomize(module: nn.Module, seed: int = 0, std: float = 0.2) -> nn.Module:
    """Redraw every parameter of `module`, in place: norms around one, the rest around zero.

    Fresh towers often answer with (nearly) zeros, which makes comparisons between implementations vacuous.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            centre = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(centre + std * noise)
    return module


def _byte_tokenizer(words: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIALS, *bytes_])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=SPECIALS[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(list(words))
    unknown, begin, end, pad = SPECIALS
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=unknown, bos_token=begin, eos_token=end, pad_token=pad
    )
