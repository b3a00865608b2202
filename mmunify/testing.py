"""Checks of the contracts and tiny parts, for the tests of people who write their own parts.

    def test_my_adapter():
        check_adapter(lambda in_dim, out_dim: MyAdapter(in_dim, out_dim))

Every check raises AssertionError with the numbers that disagree. The `tiny_*_folder` builders write models of a few
kilobytes in Hugging Face format, so that the code that loads real weights is the code under test.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

SPECIALS = ("<unk>", "<s>", "</s>", "<pad>")


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
    model = randomize(LlamaForCausalLM(config), seed=seed)
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
    randomize(CLIPVisionModel(config), seed=seed).save_pretrained(folder)
    processor = CLIPImageProcessor(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=[0.4, 0.5, 0.6],
        image_std=[0.2, 0.25, 0.3],
    )
    processor.save_pretrained(folder)
    return Path(folder)


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


def _byte_tokenizer(words: Sequence[str]) -> "PreTrainedTokenizerFast":
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
