"""The data that flows through mmunify. One legend of letters for the whole library:

    B rows          T positions        D backbone width    V vocabulary
    M media items of one encoder node, packed over the batch
    F frames        C H W pixels       N encoder tokens per item     E encoder width
    S slot length of an item           K output items of one head node, packed over the batch
    Q queries per output item          R rank              X low-rank experts

A *document* is one sample inside a row; without packing there is one document per row.
All structures are frozen, slotted and keyword-only: a step makes a new one, it never edits one.
"""

from mmunify.types.answer import Artifact, Reply
from mmunify.types.base import TensorStruct
from mmunify.types.batch import Attention, Batch, MediaBatch, OutputBatch
from mmunify.types.conversation import Box, Media, Output, Region, Role, Sample, Source, TaskCall, Text, Turn
from mmunify.types.layout import Layout, ModelSpec, NodeSpec, Preprocess, Run, SideText, SlotSpec
from mmunify.types.state import Condition, Embeds, Features, HeadOutput, Hidden, StepReport

__all__ = [
    "Artifact",
    "Attention",
    "Batch",
    "Box",
    "Condition",
    "Embeds",
    "Features",
    "HeadOutput",
    "Hidden",
    "Layout",
    "Media",
    "MediaBatch",
    "ModelSpec",
    "NodeSpec",
    "Output",
    "OutputBatch",
    "Preprocess",
    "Region",
    "Reply",
    "Role",
    "Run",
    "Sample",
    "SideText",
    "SlotSpec",
    "Source",
    "StepReport",
    "TaskCall",
    "TensorStruct",
    "Text",
    "Turn",
]
