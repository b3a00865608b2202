"""What gates know of a token in generation is what they know of it in training."""

from dataclasses import replace

import pytest
import torch

from mmunify.errors import UserError
from mmunify.experts.low_rank import current_tokens
from mmunify.infer.generate import generate
from mmunify.infer.sequence import OpenSlot, SeenMedia, Sequence
from mmunify.types import Features, Output, Text, Turn


@pytest.fixture
def seen(model, monkeypatch):
    """The token contexts that the backbone ran in."""
    contexts = []
    forward = model.backbone.forward
    monkeypatch.setattr(
        model.backbone, "forward", lambda *a, **k: contexts.append(current_tokens()) or forward(*a, **k)
    )
    return contexts


def of_valid(contexts, name):
    return [number for tokens in contexts for number in getattr(tokens, name)[tokens.valid].tolist()]


def test_generated_tokens_have_the_modality_and_the_task_of_training(model, processor, make_sample, seen, monkeypatch):
    asked, said = make_sample("a", 1, 1).turns
    picture = next(part.target for part in said.parts if isinstance(part, Output))
    talk = (
        Turn(role="user", parts=(*asked.parts[:1], Text(text="which one")), task="segment"),
        Turn(role="assistant", parts=(Text(text="this"),), task="segment"),
        Turn(role="user", parts=(Text(text="draw"),), task="generate_image"),
        Turn(role="assistant", parts=(Output(kind="image", target=picture), Text(text="so")), task="generate_image"),
    )
    whole = replace(make_sample("a"), turns=talk)
    batch = processor([whole])
    model.eval()(batch)
    modality, task = of_valid(seen, "modality"), of_valid(seen, "task")
    assert set(modality) == {0, 1, 1 + model.modalities.index("heads.image")}
    assert set(task[1:]) == {1, 2}  # the token that begins a sequence belongs to no turn

    seen.clear()
    prompt = replace(whole, turns=talk[:3])
    length = len(processor.encode(prompt, prompt=True).input_ids)
    slots = batch.outputs["image"].slots[0]
    said_ids = iter(batch.input_ids[0, length:][~slots[length:]].tolist())
    closer = processor.encoder.ids("</img>")[0]

    def unembed(states, rows=None):
        number = next(number for number in said_ids if number != closer)  # generation closes the slot by itself
        return torch.nn.functional.one_hot(torch.tensor([number]), model.backbone.vocab_size).float()

    monkeypatch.setattr(model.backbone, "unembed", unembed)
    (made,) = generate(model, processor, [prompt], max_new_tokens=40)
    assert made.finished and "image" in made.predictions
    assert of_valid(seen, "modality") == modality[: len(of_valid(seen, "modality"))]
    assert of_valid(seen, "task") == task[: len(of_valid(seen, "task"))]
    assert len(modality) - len(of_valid(seen, "modality")) <= 1  # the end-of-sequence token is not run


def test_rows_that_wait_leave_holes_that_gates_do_not_count(model, seen):
    rows = Sequence(model.backbone, 2, torch.tensor([0, 2]), torch.device("cpu"))
    rows.advance(torch.randn(2, 1, model.backbone.dim), torch.tensor([[True], [False]]))
    (tokens,) = seen
    assert tokens.valid.tolist() == [[True], [False]]
    assert (tokens.task.tolist(), tokens.modality.tolist()) == ([[0], [2]], [[0], [0]])


def test_the_latest_medium_of_every_row():
    features = Features(tokens=torch.arange(3.0).view(3, 1, 1))
    media = SeenMedia({"image": features}, {"image": torch.tensor([0, 0, 1])})
    assert media.latest("image", torch.tensor([1, 0])).tokens.flatten().tolist() == [2.0, 1.0]
    with pytest.raises(UserError, match="a prompt has none"):
        media.latest("image", torch.tensor([2]))
    with pytest.raises(UserError, match="encoder node 'sound'"):
        media.latest("sound", torch.tensor([0]))


def test_a_slot_that_is_not_committed_is_forgotten(model):
    rows = Sequence(model.backbone, 1, torch.tensor([0]), torch.device("cpu"), layers=(-1,))
    rows.advance(torch.randn(1, 3, model.backbone.dim), torch.ones(1, 3, dtype=torch.bool))
    slot, embeds = OpenSlot(rows, torch.tensor([0]), full=True), torch.randn(1, 2, model.backbone.dim)
    first = slot.run(embeds, commit=False)
    assert rows.valid.shape[1] == 3 and int(rows.next_position[0]) == 3
    torch.testing.assert_close(slot.run(embeds), first)
    assert rows.valid.shape[1] == 5 and int(rows.next_position[0]) == 5
    states, real = slot.prefix()
    assert states.shape[1] == real.shape[1] == 3


def test_media_are_needed_to_be_read(model):
    rows = Sequence(model.backbone, 1, torch.tensor([0]), torch.device("cpu"))
    with pytest.raises(UserError, match="encoder node 'image'"):
        OpenSlot(rows, torch.tensor([0]), full=False).medium("image")
