"""`evaluate`: one generation pass per task, shared by all protocols, with its baselines."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mmunify.errors import UserError
from mmunify.evaluate.answers import Answer, AnswerReader, Prompt, make_prompt, random_calls, true_calls
from mmunify.evaluate.bench import Bench, make_bench
from mmunify.evaluate.protocol import Protocol, Tools
from mmunify.evaluate.statistics import Measure
from mmunify.faults import unknown
from mmunify.registry import DATASETS, METRICS

Results = dict[str, dict[str, Measure]]
"""Protocol -> metric -> measure. Baselines are metrics with the endings `_blank`, `_truth` and `_random`."""

ALL_TASKS = (
    "caption",
    "question",
    "refer",
    "segment",
    "edit",
    "remove",
    "recolor",
    "replace",
    "layout_to_image",
    "generate_image",
    "dialogue",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """Answers to the prompts of one task, with and without their media; `blank` is empty where there are none."""

    answers: Sequence[Answer]
    blank: Sequence[Answer] = ()


def run_protocols(
    bench: Bench, protocols: Sequence[str] | None = None, num_samples: int = 200, baselines: bool = True
) -> Results:
    """Answer every task once, then let every protocol score the answers that it reads.

    Args:
        bench: the model.
        protocols: registered names; None = all that the model's tokens allow.
        num_samples: samples per task.
        baselines: whether blanked media, true calls and random calls are scored too.

    Raises:
        UserError: an unknown protocol, or one that was asked for by name and that the model has no tokens for.
    """
    chosen = _choose(protocols)
    passes = _answer_tasks(bench, _tasks_of(chosen), _own_data(chosen), num_samples, baselines)
    tools, results = Tools(run=bench.run, seed=bench.seed), {}
    for name, protocol in chosen.items():
        ours = [made for task, made in passes.items() if made.answers and task in (protocol.tasks or passes)]
        if ours:
            results[name] = _score(protocol, ours, tools, bench.reader if baselines else None)
        elif protocols is not None:
            missing = "reads none of their media" if protocol.data else "has none of them"
            raise UserError(f"protocol {name!r} needs one of the tasks {protocol.tasks}; the model {missing}")
    return results


def _choose(names: Sequence[str] | None) -> dict[str, Protocol]:
    known = METRICS.names()
    for name in names or ():
        if name not in known:
            raise UserError(unknown("protocol", name, known))
    return {name: METRICS.build({"name": name}) for name in names or known}


def _tasks_of(protocols: Mapping[str, Protocol]) -> list[str]:
    """Tasks to answer, in a fixed order; a protocol without tasks of its own reads all of them, dialogues included."""
    wanted = {task for protocol in protocols.values() for task in protocol.tasks}
    if any(not protocol.tasks for protocol in protocols.values()):
        wanted |= set(ALL_TASKS)
    return [task for task in ALL_TASKS if task in wanted] + sorted(wanted.difference(ALL_TASKS))


def _own_data(protocols: Mapping[str, Protocol]) -> dict[str, Mapping[str, Any]]:
    """Task -> node of its data set, for tasks that don't come from the bench's."""
    return {task: node for protocol in protocols.values() for task, node in protocol.data.items()}


def _answer_tasks(
    bench: Bench, tasks: Sequence[str], own: Mapping[str, Mapping[str, Any]], num_samples: int, blank: bool
) -> dict[str, Pass]:
    drawn = {key: bench.data[key] for key in ("split", "seed") if key in bench.data}
    passes = {}
    for task in tasks:
        dataset = DATASETS.build({**drawn, **own[task]} if task in own else {**bench.data, "tasks": [task]})
        passes[task] = _answer(bench, _prompts(bench, dataset, num_samples, task in own), blank)
        bench.report(task, len(tasks))
    return passes


def _prompts(bench: Bench, dataset: Any, num_samples: int, is_own: bool) -> list[Prompt]:
    """Prompts that the model can answer; none of a data set of its own whose media the model cannot read."""
    if is_own and not bench.reader.can_read(make_prompt(dataset[0])):
        return []
    # a dialogue is cut before a turn that depends on its index: every turn is tested, samples stay independent
    drawn = (make_prompt(dataset[index], index) for index in range(min(num_samples, len(dataset))))
    return [prompt for prompt in drawn if bench.reader.can_write(prompt)]


def _answer(bench: Bench, prompts: Sequence[Prompt], blank: bool) -> Pass:
    if not prompts:
        return Pass(answers=())
    blank = blank and any(prompt.media for prompt in prompts)
    return Pass(answers=_read(bench, prompts, False), blank=_read(bench, prompts, True) if blank else ())


def _read(bench: Bench, prompts: Sequence[Prompt], blank: bool) -> list[Answer]:
    replies = bench.respond([prompt.sample for prompt in prompts], blank)
    return [
        bench.reader.read(prompt, reply.text, reply.predictions, reply.finished)
        for prompt, reply in zip(prompts, replies, strict=True)
    ]


def _score(protocol: Protocol, passes: Sequence[Pass], tools: Tools, reader: AnswerReader | None) -> dict[str, Measure]:
    """The model's measures, and those of its baselines with their endings; metrics without samples are left out."""
    answers = [answer for made in passes for answer in made.answers]
    columns: dict[str, Sequence[Answer]] = {"": answers}
    if any(made.blank for made in passes):
        columns["_blank"] = [answer for made in passes for answer in (made.blank or made.answers)]
    if reader is not None and protocol.by_calls:
        columns |= _other_calls(answers, reader, tools.seed)
    scored = [(ending, protocol(column, tools)) for ending, column in columns.items()]
    return {f"{metric}{ending}": found for ending, made in scored for metric, found in made.items() if found.n}


def _other_calls(answers: Sequence[Answer], reader: AnswerReader, seed: int) -> dict[str, Sequence[Answer]]:
    """The same answers with the true calls and with random ones; none where nothing is to be called."""
    if not any(answer.truth.calls for answer in answers):
        return {}
    return {"_truth": true_calls(answers, reader), "_random": random_calls(answers, reader, seed)}


# ------------------------------------------------------------------------------------------- from a bundle


def evaluate(
    bundle: Any,
    protocols: Sequence[str] | None = None,
    num_samples: int = 200,
    split: str = "test",
    batch_size: int = 64,
    seed: int = 1000,
    progress: bool = True,
    max_new_tokens: int = 128,
    baselines: bool = True,
) -> Results:
    """Evaluate a trained model on the digit world.

    Args:
        bundle: see `mmunify.checkpoint`.
        protocols: registered names; None = all that the model's tokens allow.
        num_samples: samples per task.
        split: whose handwriting the scenes are made of.
        batch_size: prompts answered together.
        seed: of the scenes, the random calls and the bootstraps.
        progress: show a progress bar.
        max_new_tokens: longer answers are cut off, and count as not parsed.
        baselines: whether blanked media, true calls and random calls are scored too.

    Raises:
        UserError: an unknown protocol, or one that was asked for by name and that the model has no tokens for.
    """
    with _progress(progress) as report:
        data = {"name": "digit_world", "split": split, "seed": seed}
        bench = make_bench(bundle, data, batch_size, max_new_tokens, seed, report)
        return run_protocols(bench, protocols, num_samples, baselines)


@contextmanager
def _progress(shown: bool) -> Iterator[Callable[[str, int], None]]:
    """A bar that moves on by one for every task."""
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn(), disable=not shown) as bar:
        row = bar.add_task("evaluating", total=None)
        yield lambda task, total: bar.update(row, advance=1, total=total, description=f"evaluated {task}")
