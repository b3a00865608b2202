"""A bundle as evaluation sees it: it answers prompts, and its experts and de-tokenizers carry the answers out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmunify.evaluate.answers import Answer, AnswerReader
from mmunify.evaluate.protocol import Run
from mmunify.parts import Workspace
from mmunify.types import Artifact, Sample, TaskCall

Respond = Callable[[Sequence[Sample], bool], Sequence[Any]]
"""Prompts, and whether their media are blanked -> for each one `text`, `predictions` and `finished`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A model as evaluation sees it.

    Attributes:
        respond: answers prompts.
        reader: reads the answers.
        run: carries out the calls of an answer.
        data: node of the data set (its `tasks` are filled in per task).
        seed: of random calls and bootstraps.
        report: told after every task (name, number of tasks).
    """

    respond: Respond
    reader: AnswerReader
    run: Run
    data: Mapping[str, Any] = field(default_factory=lambda: {"name": "digit_world", "split": "test"})
    seed: int = 0
    report: Callable[[str, int], None] = lambda task, total: None


def make_bench(
    bundle: Any,
    data: Mapping[str, Any],
    batch_size: int,
    max_new_tokens: int,
    seed: int,
    report: Callable[[str, int], None],
) -> Bench:
    """The bench of a bundle.

    Args:
        bundle: see `mmunify.checkpoint`.
        data: node of the data set.
        batch_size: prompts answered together.
        max_new_tokens: longer answers are cut off.
        seed: of random calls, bootstraps, experts and de-tokenizers.
        report: told after every task.
    """
    model = bundle.model
    reader = AnswerReader(tokens=model.tokens, spec=model.spec())
    respond = _responder(bundle, batch_size, max_new_tokens)
    return Bench(respond=respond, reader=reader, run=_runner(bundle, seed), data=data, seed=seed, report=report)


def _responder(bundle: Any, batch_size: int, max_new_tokens: int) -> Respond:
    from mmunify.infer.generate import generate

    processor = bundle.processor()

    def respond(samples: Sequence[Sample], blank: bool) -> Sequence[Any]:
        return generate(
            bundle.model,
            processor,
            samples,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            blank_media=blank,
        )

    return respond


def _runner(bundle: Any, seed: int) -> Callable[[Answer], Sequence[Artifact]]:
    """Experts and de-tokenizers as the assistant has them; calls in the text go first, then the filled slots."""
    from mmunify.infer.assistant import Assistant
    from mmunify.infer.decode import made_by, slot_task

    router = Assistant.load(bundle).router

    def run(answer: Answer) -> Sequence[Artifact]:
        slots = [
            TaskCall(task=slot_task(bundle.model, node), instruction="picture", condition=states)
            for node, items in answer.predictions.items()
            if made_by(bundle.model, node) in ("features", "mask")
            for states in items
        ]
        workspace = Workspace(media=answer.prompt.media, seed=seed)
        return router.run([*answer.reply.calls, *slots], workspace)[0]

    return run
