import itertools
import threading

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmunify.errors import UserError
from mmunify.experts.low_rank._context import (
    TokenContext,
    checkpoint_context_fn,
    current_tokens,
    is_recomputing,
    use_tokens,
)
from mmunify.types import Attention, Batch, MediaBatch, OutputBatch, Sample, Text, Turn


class ByTask(nn.Module):
    """Scales by the task of every token, so that a wrong context gives a wrong gradient."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, 10.0]))
        self.seen = []

    def forward(self, x):
        self.seen.append(is_recomputing())
        return (x * self.scale[current_tokens().task]).exp()


def tasks(*ids):
    return TokenContext(task=torch.tensor([ids]))


def test_context_ends_with_its_block_also_after_an_error():
    with use_tokens(tasks(1)):
        with pytest.raises(ZeroDivisionError), use_tokens(tasks(2)):
            raise ZeroDivisionError
        assert current_tokens().task.item() == 1
    assert current_tokens() is None


def test_threads_do_not_see_each_other():
    seen = []
    with use_tokens(tasks(1)):
        thread = threading.Thread(target=lambda: seen.append(current_tokens()))
        thread.start()
        thread.join()
    assert seen == [None]


def gradient(context_fn, run_backward=lambda backward: backward()):
    """Two forwards with different tasks, then one backward."""
    layer, x = ByTask(), torch.tensor([[0.1, 0.2]])
    outs = []
    for tokens in (tasks(0, 0), tasks(1, 1)):
        with use_tokens(tokens):
            keywords = {"context_fn": context_fn} if context_fn else {}
            outs.append(checkpoint(layer, x, use_reentrant=False, **keywords) if context_fn else layer(x))
    run_backward(sum(outs).sum().backward)
    return layer


def in_another_thread(backward):
    """As autograd does for the layers of a GPU."""
    thread = threading.Thread(target=backward)
    thread.start()
    thread.join()


@pytest.mark.parametrize("run_backward", [lambda backward: backward(), in_another_thread])
def test_recomputation_sees_the_tokens_of_its_own_forward(run_backward):
    plain, recomputed = gradient(None), gradient(checkpoint_context_fn, run_backward)
    torch.testing.assert_close(recomputed.scale.grad, plain.scale.grad)
    assert recomputed.seen == [False, False, True, True]
    assert current_tokens() is None


def test_checkpointing_without_a_context_still_knows_that_it_recomputes():
    seen = []

    def layer(x):
        seen.append(is_recomputing())
        return x.exp()

    x = torch.ones(2, requires_grad=True)
    checkpoint(layer, x, use_reentrant=False, context_fn=checkpoint_context_fn).sum().backward()
    assert seen == [False, True]


def test_flat_refuses_another_number_of_tokens():
    tokens = TokenContext(valid=torch.ones(2, 5, dtype=torch.bool))
    assert tokens.flat("valid", 10).shape == (10,)
    assert tokens.flat("task", 10) is None
    with pytest.raises(UserError, match=r"describes \(2, 5\) = 10 tokens, but the gate saw 12"):
        tokens.flat("valid", 12)


def test_a_batch_tells_of_its_tokens():
    ids, slots = torch.zeros(2, 4, dtype=torch.long), torch.zeros(2, 4, dtype=torch.bool)
    valid = torch.tensor([[True] * 4, [True, True, False, False]])
    document = torch.tensor([0, 1])[:, None].where(valid, torch.tensor(-1))
    attention = Attention(document=document, segment=ids, full=slots, valid=valid)
    labels = torch.tensor([[-100, -100, 5, 6], [-100, 3, -100, -100]])
    image, drawn = slots.clone(), slots.clone()
    image[0, 1], drawn[1, 1] = True, True
    number = torch.zeros(1, dtype=torch.long)
    media = MediaBatch(values=None, slots=image, document=number, extent=torch.zeros(1, 2, dtype=torch.long))
    batch = Batch(
        input_ids=ids,
        labels=labels,
        attention=attention,
        position_ids=ids,
        task=torch.tensor([3, 7]),
        media={"image": media},
        outputs={"image": OutputBatch(slots=drawn, document=number)},
    )
    tokens = TokenContext.of(batch, ["encoders.sound", "encoders.image", "heads.image"])
    assert tokens.task.tolist() == [[3, 3, 3, 3], [7, 7, 3, 3]]
    assert tokens.modality.tolist() == [[0, 2, 0, 0], [0, 3, 0, 0]]
    assert tokens.response.tolist() == [[False, False, True, True], [False, True, False, False]]
    assert tokens.valid is valid and tokens.document is document


def test_flat_hidden_states_keep_their_width():
    tokens = TokenContext(hidden=torch.zeros(2, 5, 3))
    assert tokens.flat("hidden", 10).shape == (10, 3)
    with pytest.raises(UserError, match=r"describes \(2, 5\) = 10 tokens, but the gate saw 9"):
        tokens.flat("hidden", 9)


def test_turns_bring_their_own_tasks(processor):
    says = lambda role, text, task="": Turn(role=role, parts=(Text(text=text),), task=task)  # noqa: E731
    talk = (says("user", "one", "segment"), says("assistant", "two", "segment"), says("user", "three", "question"))
    samples = [
        Sample(turns=(*talk, says("assistant", "four", "generate_image")), id="mixed", task="segment"),
        Sample(turns=(says("user", "five"), says("assistant", "six")), id="plain", task="generate_image"),
    ]
    batch = processor(samples)
    tokens = TokenContext.of(batch)
    mixed, plain = (row[valid].tolist() for row, valid in zip(tokens.task, tokens.valid, strict=True))
    assert set(plain[1:]) == {2}  # the token that begins a sequence belongs to no turn
    assert [task for task, _ in itertools.groupby(mixed[1:])] == [1, 0, 2]
    responses = tokens.task[tokens.response]
    assert sorted(set(responses.tolist())) == [1, 2]
    assert batch.task.tolist() == [1, 2]
    assert processor(samples[1:]).turn_task is None
