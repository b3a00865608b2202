"""Generation: cache, batches, slots."""

import pytest
import torch

from mmunify.composer import compose
from mmunify.data.processor import Processor
from mmunify.errors import UserError
from mmunify.infer.generate import generate
from mmunify.testing import randomize


@pytest.fixture
def talker(model):
    """A model whose logits are far apart, and which likes to open slots."""
    randomize(model, seed=1)
    return model.eval()


def prompts(make_sample):
    return [make_sample("a", 1, prompt=True), make_sample("bbbb", 0, prompt=True), make_sample("cc", 2, prompt=True)]


def test_cached_greedy_decoding_equals_running_everything_again(talker, processor, make_sample):
    sample = make_sample("apple", 1, prompt=True)
    made = generate(talker, processor, [sample], max_new_tokens=8)[0]
    batch = processor([sample], prompt=True)
    embeds = talker.embed(batch, talker.encode(batch))[:, : int(batch.attention.valid.sum())]
    slots = {processor.encoder.ids("<img>")[0]}
    forbidden = [processor.encoder.ids(s)[0] for s in ("<slot>", "<image>", "</image>", "</img>")]
    for number in made.ids:
        if number in slots:
            break
        attention = type(batch.attention)(
            document=torch.zeros(embeds.shape[:2], dtype=torch.long),
            segment=torch.zeros(embeds.shape[:2], dtype=torch.long),
            full=torch.zeros(embeds.shape[:2], dtype=torch.bool),
            valid=torch.ones(embeds.shape[:2], dtype=torch.bool),
        )
        hidden = talker.backbone(embeds, attention, torch.arange(embeds.shape[1])[None])
        logits = talker.backbone.unembed(hidden.last[:, -1])
        logits[:, forbidden] = float("-inf")
        assert int(logits.argmax(-1)) == number
        embeds = torch.cat([embeds, talker.backbone.embed(torch.tensor([[number]]))], dim=1)


def test_batched_answers_equal_one_by_one(talker, processor, make_sample):
    samples = prompts(make_sample)
    together = generate(talker, processor, samples, max_new_tokens=10)
    alone = [generate(talker, processor, [sample], max_new_tokens=10)[0] for sample in samples]
    assert [made.ids for made in together] == [made.ids for made in alone]


def test_slots_that_open_at_different_positions(talker, processor, make_sample, monkeypatch):
    """Rows open their slot after one, two and three tokens; the features equal those of a single row."""
    opener = processor.encoder.ids("<img>")[0]
    samples = prompts(make_sample)

    def scripted(turns, first_row):
        steps = iter(range(1000))

        def unembed(states, rows=None):
            step = next(steps)
            logits = torch.zeros(len(states), talker.backbone.vocab_size)
            for row, turn in enumerate(turns):
                logits[row, opener if step == turn else 40 + first_row + row + step] = 1.0
            return logits

        return unembed

    def run(chosen, turns, first_row=0):
        with monkeypatch.context() as patch:
            patch.setattr(talker.backbone, "unembed", scripted(turns, first_row))
            return generate(talker, processor, chosen, max_new_tokens=6)

    together = run(samples, [1, 2, 3])
    for row, turn in enumerate((1, 2, 3)):
        (alone,) = run([samples[row]], [turn], row)
        assert alone.ids == together[row].ids
        assert together[row].predictions["image"].shape == (1, 16, 32)
        torch.testing.assert_close(together[row].predictions["image"], alone.predictions["image"], rtol=1e-4, atol=1e-5)


def test_a_generated_slot_equals_the_forward_pass(talker, processor, make_sample):
    """What `generate` predicts in a slot is what training sees at the same place."""
    from mmunify.infer.sequence import OpenSlot, Sequence

    sample = make_sample("apple", 1, 1)
    batch = processor([sample])
    report = talker(batch)
    wanted = report.outputs["image"].conditions.states
    end = int(batch.outputs["image"].slots[0].nonzero()[0])
    embeds = talker.embed(batch, talker.encode(batch))[:, :end]
    rows = Sequence(talker.backbone, 1, batch.task, embeds.device)
    rows.advance(embeds, batch.attention.valid[:, :end], batch.position_ids[:, :end])
    head = talker.heads["image"]
    before = rows.valid.shape[1]
    probe = OpenSlot(rows, torch.tensor([0]), False).run(head.queries[None], commit=False)
    assert rows.valid.shape[1] == before
    torch.testing.assert_close(head.connector(probe), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head.generate(OpenSlot(rows, torch.tensor([0]), False), 1), wanted, rtol=1e-4, atol=1e-5)


def test_slot_and_media_ids_are_never_chosen(talker, processor, make_sample):
    made = generate(talker, processor, prompts(make_sample), max_new_tokens=30, temperature=5.0)
    forbidden = {processor.encoder.ids(s)[0] for s in ("<slot>", "<image>", "</image>")}
    assert not forbidden & {number for one in made for number in one.ids}


def test_without_an_output_head_no_slot_opens(nodes, make_sample):
    model = compose(**{**nodes, "heads": {"text": {"name": "text"}}})
    processor = Processor(model.spec(), model.backbone.tokenizer, model.tokens)
    made = generate(model, processor, prompts(make_sample), max_new_tokens=30, temperature=5.0)
    assert processor.encoder.ids("<img>")[0] not in {number for one in made for number in one.ids}


def test_encoders_run_once_per_prompt(talker, processor, make_sample, monkeypatch):
    calls = []
    forward = talker.encoders["image"].forward
    monkeypatch.setattr(talker.encoders["image"], "forward", lambda *a: calls.append(1) or forward(*a))
    generate(talker, processor, [make_sample("a", 1, prompt=True)], max_new_tokens=8)
    assert len(calls) == 1


def test_blanked_media_change_the_answer_and_mode_is_restored(talker, processor, make_sample):
    sample = make_sample("a", 2, prompt=True)
    talker.train()
    seen = generate(talker, processor, [sample], max_new_tokens=12)[0]
    blind = generate(talker, processor, [sample], max_new_tokens=12, blank_media=True)[0]
    assert seen.ids != blind.ids
    assert talker.training


def test_sampling_is_seeded(talker, processor, make_sample):
    sample = [make_sample("a", prompt=True)]
    draw = lambda seed: generate(talker, processor, sample, max_new_tokens=12, temperature=3.0, seed=seed)[0].ids  # noqa: E731
    assert draw(1) == draw(1) != draw(2)


def test_a_model_without_backbone_says_so(nodes, processor):
    model = compose(encoders=nodes["encoders"])
    with pytest.raises(UserError, match="no backbone"):
        generate(model, processor, [])


def test_an_answer_that_wants_too_many_outputs_says_so(talker, processor, make_sample, monkeypatch):
    opener, word = processor.encoder.ids("<img>")[0], processor.encoder.ids("a")[0]

    def unembed(states, rows=None):
        logits = torch.zeros(len(states), talker.backbone.vocab_size)
        logits[0, opener], logits[:, word] = 2.0, 1.0
        return logits

    monkeypatch.setattr(talker.backbone, "unembed", unembed)
    made = generate(talker, processor, prompts(make_sample)[:2], max_new_tokens=5, max_outputs=2)
    assert [len(one.predictions.get("image", ())) for one in made] == [2, 0]
    assert [one.wanted_more for one in made] == [True, False]
    assert not generate(talker, processor, prompts(make_sample)[:1], max_new_tokens=5)[0].wanted_more
