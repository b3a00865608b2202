"""Tiny published models, as `save_pretrained` writes them: with a tokenizer whose tables are longer than it."""

from transformers import (
    AutoTokenizer,
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from mmunify.testing import randomize, tiny_llama_folder
from tests.parity.test_llava import TEXT, TOWERS

IMAGE = "<image>"
PADDING = 5
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def write_llava(folder, tower="clip", dtype=None, padding=PADDING):
    """LLaVA-1.5 in transformers' layout, with its processor; returns the folder and their model."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_folder(folder.with_name("llama"), words=[IMAGE]))
    config = LlavaConfig(
        text_config={**TEXT, "vocab_size": len(tokenizer) + padding},
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=16,
        **TOWERS[tower],
    )
    theirs = randomize(LlavaForConditionalGeneration(config)).eval()
    if dtype is not None:
        theirs = theirs.to(dtype)
    theirs.save_pretrained(folder)
    mean, std = (MEAN, STD) if "clip" in tower else ([0.5] * 3, [0.5] * 3)
    pictures = CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_mean=mean, image_std=std
    )
    places = {"patch_size": 8, "vision_feature_select_strategy": theirs.config.vision_feature_select_strategy}
    extra = int("clip" in tower)
    LlavaProcessor(pictures, tokenizer, num_additional_image_tokens=extra, **places).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, theirs
