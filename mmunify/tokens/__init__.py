"""Every special token, and the two ways between a reply's text and its calls: `format_*` and `parse_reply`.

A call is `<task>instruction</task>` followed by its grounding pairs `<box>label[x0,y0,x1,y1]...</box>`. A grounding
pair without a call names a region of the answer. `TokenRegistry` is the only source of these strings for tokenizer,
data, parser and router. The tags are the ones of UnifiedMLLM (arXiv 2408.02503); coordinates are ordinary text with
three decimals in the frame of the image padded to a square (GroundingGPT), while every `Region` lives in the frame
of the original image: `format_*` pads, `parse_reply` un-pads.

`format_call` and `parse_reply` are inverse to each other for task, instruction, boxes and labels.
"""

from mmunify.tokens.frames import bounding_box, pad_box, unpad_box
from mmunify.tokens.pairs import DEFAULT_TOKENS, DIGIT_TASKS, GROUNDED_TASKS, TokenRegistry
from mmunify.tokens.parsing import ParsedReply, Problem, parse_reply
from mmunify.tokens.writing import format_call, format_region

__all__ = [
    "DEFAULT_TOKENS",
    "DIGIT_TASKS",
    "GROUNDED_TASKS",
    "ParsedReply",
    "Problem",
    "TokenRegistry",
    "bounding_box",
    "format_call",
    "format_region",
    "pad_box",
    "parse_reply",
    "unpad_box",
]
