"""How long a stage's samples are: positions, what of them are media and padding, what is too long or can't be read."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mmunify.commands.memory import num_processes
from mmunify.data.encode import Example
from mmunify.data.processor import Processor
from mmunify.errors import MMUnifyError
from mmunify.model import UnifiedModel
from mmunify.recipe import Recipe, Stage
from mmunify.train.loader import require_samples, stage_batches, stage_samples
from mmunify.train.window import BatchMaker, DividingBatchMaker

NUM_SAMPLES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Of the first samples of a stage.

    Attributes:
        samples: that were looked at; unusable: those that can't be used, of which `problem` is the first one's.
        mean, p95, longest: positions of a sample.
        learned: share of the positions that are learned; media: that hold media.
        padding: share of a batch's positions.
        batch: positions of the largest batch, padding included.
    """

    samples: int
    unusable: int
    problem: str
    mean: float
    p95: float
    longest: int
    learned: float
    media: float
    padding: float
    batch: int


def stage_budget(
    recipe: Recipe, model: UnifiedModel, index: int, num_samples: int = NUM_SAMPLES
) -> dict[str, Any] | None:
    """Positions of a stage's samples, in the order in which training sees them.

    Args:
        recipe: of the run.
        model: of the stage, on any device.
        index: of the stage.
        num_samples: to look at.

    Returns:
        The fields of `Budget`; None for a model without a backbone, whose samples have no positions.

    Raises:
        UserError: data sets that can't be opened, or with fewer samples than a batch over all processes.
    """
    if model.backbone is None or model.backbone.tokenizer is None:
        return None
    stage = recipe.stages[index]
    processor = Processor(model.spec(), model.backbone.tokenizer, model.tokens, recipe.chat, recipe.max_length)
    samples = stage_samples(stage, [recipe.seed, index])
    require_samples(samples, stage.batch_size, num_processes(recipe.trainer))
    examples, problems, num_slots = [], [], 0
    for k in range(num_samples):
        try:
            example = processor.encode(samples[k])
        except MMUnifyError as error:
            problems.append(str(error))
            continue
        num_slots += sum(len(item.slots) for items in example.media.values() for item in items)
        examples.append(replace(example, media={}, outputs={}))  # pictures of hundreds of samples would fill the memory
    return asdict(_budget(examples, problems, num_slots, stage_batches(stage, processor), stage))


def _budget(
    examples: Sequence[Example], problems: Sequence[str], num_slots: int, maker: BatchMaker, stage: Stage
) -> Budget:
    lengths = np.array([len(example.input_ids) for example in examples] or [0])
    total = max(1, int(lengths.sum()))
    sizes = list(_batch_sizes(examples, maker, stage.batch_size))
    padded, real = sum(size for size, _ in sizes), sum(valid for _, valid in sizes)
    return Budget(
        samples=len(examples) + len(problems),
        unusable=len(problems),
        problem=problems[0] if problems else "",
        mean=float(lengths.mean()),
        p95=float(np.percentile(lengths, 95)),
        longest=int(lengths.max()),
        learned=sum(label >= 0 for example in examples for label in example.labels) / total,
        media=num_slots / total,
        padding=1 - real / max(1, padded),
        batch=max((size for size, _ in sizes), default=0),
    )


def _batch_sizes(examples: Sequence[Example], maker: BatchMaker, batch_size: int) -> Iterator[tuple[int, int]]:
    """Positions of every whole batch, and how many are no padding; of fewer samples than a batch, of these."""
    for start in range(0, len(examples) - batch_size + 1, batch_size) or range(min(1, len(examples))):
        chosen = examples[start : start + batch_size]
        made = maker.batches(chosen) if isinstance(maker, DividingBatchMaker) else [maker.collate(chosen)]
        for batch in made:
            yield batch.input_ids.numel(), int(batch.attention.valid.sum())
