import numpy as np
import pytest
import torch
from PIL import Image

from mmunify.checkpoint import Bundle
from mmunify.composer import compose
from mmunify.data.processor import Processor
from mmunify.errors import DataError, UserError
from mmunify.experts.router import DIGIT_EXPERTS, TaskRouter
from mmunify.infer import assistant as module
from mmunify.infer.assistant import Assistant
from mmunify.infer.generate import Generated
from mmunify.recipe import Recipe
from mmunify.tokens import TokenRegistry
from mmunify.types import Artifact, Media, Output, Region, Sample, Text, Turn
from tests.conftest import TINY_CLIP

SQUARE = np.full((40, 80, 3), 100, np.uint8)
SQUARE[10:30, 20:40] = (200, 30, 30)
BOX = "<box>red square[0.250,0.375,0.500,0.625]</box>"  # of the picture padded to 80 x 80
SEGMENT = f"Sure. <segment>the red square</segment>{BOX}"
TOKENS = ["segment", "edit", "remove", "generate_image"]


@pytest.fixture
def talk(nodes, monkeypatch):
    """talk(*answers, **settings): an assistant whose model gives these answers; `prompts` holds what it was asked."""
    model = compose(**{**nodes, "tokens": TokenRegistry(TOKENS)})
    processor = Processor(model.spec(), model.backbone.tokenizer, model.tokens)

    def make(*answers, **settings):
        pending, prompts = list(answers), []

        def generate(model, processor, samples, max_new_tokens):
            (sample,) = samples
            processor(samples, prompt=True)  # what the model would see can be encoded
            prompts.append(sample)
            answer = pending.pop(0)
            return [answer if isinstance(answer, Generated) else Generated(text=answer, ids=[])]

        monkeypatch.setattr(module, "generate", generate)
        router = TaskRouter.build({task: node for task, node in DIGIT_EXPERTS.items() if task in TOKENS})
        made = Assistant(model, processor, router, **settings)
        made.prompts = prompts
        return made

    return make


def last_user(assistant):
    return assistant.prompts[-1].turns[-1].parts


def test_a_call_is_carried_out_in_the_frame_of_the_original_picture(talk):
    reply = talk(SEGMENT).reply("Segment the red square.", image=SQUARE)
    assert (reply.text, reply.raw, reply.problems) == ("Sure.", SEGMENT, ())
    assert reply.calls[0].regions[0].box == (0.25, 0.25, 0.5, 0.75)
    (mask,) = reply.artifacts
    assert mask.name == "mask-red-square" and np.array_equal(mask.data, SQUARE[..., 0] == 200)


@pytest.mark.parametrize("kind", ["path", "text", "pil", "array"])
def test_a_picture_may_come_as_path_array_or_pil_image(talk, tmp_path, kind):
    path = tmp_path / "scene.png"
    Image.fromarray(SQUARE).save(path)
    image = {"path": path, "text": str(path), "pil": Image.fromarray(SQUARE), "array": SQUARE}[kind]
    reply = talk(SEGMENT).reply("Segment it.", image=image)
    assert np.array_equal(reply.artifacts[0].data, SQUARE[..., 0] == 200)


def test_boxes_outside_calls_are_regions_of_the_reply(talk):
    reply = talk(f"It is here: {BOX}.").reply("Where is it?", image=SQUARE)
    assert reply.text == "It is here: red square."
    assert [(r.label, r.box) for r in reply.regions] == [("red square", (0.25, 0.25, 0.5, 0.75))]
    assert reply.artifacts == ()


def test_turns_are_remembered_until_reset(talk):
    assistant = talk("One.", "Red.", "Hello.")
    assistant.reply("How many?", image=SQUARE)
    assistant.reply("What color?")
    turns = assistant.prompts[-1].turns
    assert [turn.role for turn in turns] == ["user", "assistant", "user"]
    assert [type(part) for part in turns[0].parts] == [Media, Text]
    assert turns[1].parts == (Text(text="One."),) and turns[2].parts == (Text(text="What color?"),)
    assistant.reset()
    assistant.reply("Hi.")
    assert len(assistant.prompts[-1].turns) == 1


def test_experts_go_on_with_the_edited_picture_and_the_model_sees_it_next(talk):
    edit = "<edit>invert the colors</edit>"
    assistant = talk(edit, edit, "A picture.")
    first = assistant.reply("Invert it.", image=SQUARE).artifacts[0].data
    assert np.array_equal(first, 255 - SQUARE)
    second = assistant.reply("Again.").artifacts[0].data
    assert np.array_equal(second, SQUARE)
    assert np.array_equal(last_user(assistant)[0].source, 255 - SQUARE)
    assistant.reply("What is this?", image=SQUARE)
    assert len(last_user(assistant)) == 2  # the user's own picture alone


def test_without_feeding_back_only_the_experts_see_it(talk):
    edit = "<edit>invert the colors</edit>"
    assistant = talk(edit, edit, feed_back=False)
    assistant.reply("Invert it.", image=SQUARE)
    assert np.array_equal(assistant.reply("Again.").artifacts[0].data, SQUARE)
    assert last_user(assistant) == (Text(text="Again."),)


def test_a_region_is_written_behind_the_prompt(talk):
    assistant = talk("Red.", "Red.", "Red.")
    assistant.reply("What is this?", image=SQUARE, region=Region(box=(0.25, 0.25, 0.5, 0.75), label="thing"))
    assert last_user(assistant)[-1].text == "What is this? <box>thing[0.250,0.375,0.500,0.625]</box>"
    assistant.reply("And this?", region=Region(mask=SQUARE[..., 0] == 200))
    assert last_user(assistant)[-1].text == "And this? <box>[0.250,0.375,0.500,0.625]</box>"
    assistant.reset()
    with pytest.raises(UserError, match="no image was given; pass image="):
        assistant.reply("What is this?", region=Region(box=(0.0, 0.0, 1.0, 1.0)))


def test_what_is_wrong_with_a_reply_is_said_in_words(talk):
    cut = Generated(text="<remove>it</remove> <paint>x</paint>", ids=[], finished=False)
    reply = talk(cut).reply("Remove it.", image=SQUARE, max_new_tokens=9)
    assert [problem.split(":")[0] for problem in reply.problems] == [
        "missing_grounding",
        "unknown_task",
        "cut",
        "missing_regions",
    ]
    assert "max_new_tokens=9" in reply.problems[2]


def test_a_call_without_a_picture_is_a_problem_not_an_error(talk):
    reply = talk(SEGMENT).reply("Segment the red square.")
    assert reply.artifacts == () and "needs a medium of kind 'image'" in reply.problems[0]


def test_the_policy_reaches_the_parser(talk):
    broken = f"<segment>x{BOX}"
    assert len(talk(broken).reply("Go.", image=SQUARE).artifacts) == 1
    assert talk(broken, policy="strict").reply("Go.", image=SQUARE).calls == ()
    assert talk(SEGMENT, policy="text_only").reply("Go.", image=SQUARE).calls == ()


def test_artifacts_are_saved_under_names_that_say_what_they_are(talk, tmp_path):
    assistant = talk(SEGMENT + " <edit>flip it</edit>")
    assistant.reply("Segment and flip.", image=SQUARE, out=tmp_path / "answers")
    assert [path.name for path in assistant.saved] == ["mask-red-square.png", "edited-flip-it.png"]
    assert np.array_equal(np.asarray(Image.open(assistant.saved[1])), SQUARE[:, ::-1])


class Grey:
    """A de-tokenizer that paints the mean of its features."""

    name = "detokenizers.image"

    def __call__(self, call, workspace):
        pixels = np.full((8, 8, 3), int(call.condition.mean()), np.uint8)
        return [Artifact(kind="image", data=pixels, call=call, producer=self.name)]


def test_output_slots_are_drawn_in_order_among_the_calls(talk):
    text = "Here <img></img> then <edit>invert the colors</edit> and <img></img>"
    features = torch.stack([torch.full((16, 32), value) for value in (50.0, 60.0)])
    assistant = talk(Generated(text=text, ids=[], predictions={"image": features}), "Fine.")
    assistant.router = assistant.router.with_conditioned({"generate_image": Grey()})
    reply = assistant.reply("Draw a red 7.", image=SQUARE)
    assert [int(artifact.data[0, 0, 0]) for artifact in reply.artifacts] == [50, 205, 60]
    assert [call.task for call in reply.calls] == ["generate_image", "edit", "generate_image"]
    assert reply.calls[0].instruction == "Draw a red 7." and reply.text == "Here then and"
    assistant.reply("Thanks.")
    spoken = assistant.prompts[-1].turns[1].parts
    assert [type(part) for part in spoken] == [Text, Output, Text, Output]
    assert [int(part.target[0, 0, 0]) for part in spoken[1::2]] == [50, 60]
    assert spoken[2].text == " then <edit>invert the colors</edit> and "


def test_a_turn_that_fails_leaves_the_conversation_as_it_was(talk):
    assistant = talk("Hello.")
    assistant.reply("Hi.")
    before = assistant.memory
    for wrong, message in (
        ({"image": "gone.png"}, "gone.png does not exist"),
        ({"video": "clip.mp4"}, "kind 'video'"),
    ):
        with pytest.raises(DataError, match=message):
            assistant.reply("Look.", **wrong)
    with pytest.raises(UserError, match="the prompt is ' '; say or ask something"):
        assistant.reply(" ")
    assert assistant.memory == before


def test_a_real_model_answers_without_any_script(model, processor, tmp_path):
    assistant = Assistant(model, processor, TaskRouter({}))
    for prompt, image in (("look at this", SQUARE), ("and again", None)):
        reply = assistant.reply(prompt, image=image, max_new_tokens=6, out=tmp_path)
        assert isinstance(reply.text, str) and reply.raw == assistant.memory.turns[-1].parts[0].text
    assert len(assistant.memory.turns) == 4


def test_a_bundle_brings_its_experts(talk):
    model = talk().model
    assert set(Assistant.load(Bundle(Recipe(), model)).router.experts) == set(TOKENS)
    recipe = Recipe(experts={"edit": {"name": "global_edit"}})
    loaded = Assistant.load(Bundle(recipe, model), feed_back=False)
    assert set(loaded.router.experts) == {"edit"} and not loaded.feed_back
    assert loaded.tasks == {"image": "generate_image"}


def test_a_picture_a_clip_and_a_sound_in_one_conversation(llama_folder):
    clip = {"name": "clip", "config": TINY_CLIP}
    whisper = {"model_type": "whisper", "num_mel_bins": 8, "d_model": 16, "encoder_layers": 1}
    whisper |= {"encoder_attention_heads": 2, "encoder_ffn_dim": 16, "max_source_positions": 10}
    model = compose(
        encoders={
            "image": clip,
            "video": {"name": "frames", "encoder": clip, "num_frames": 2},
            "audio": {"name": "hf_audio", "config": whisper},
        },
        adapters={kind: {"name": "average_pool", "over": "all"} for kind in ("image", "video", "audio")},
        backbone={"name": "huggingface", "path": str(llama_folder)},
        heads={"text": {"name": "text"}},
        tokens=TokenRegistry(kinds=["image", "video", "audio"]),
    ).eval()
    processor = Processor(model.spec(), model.backbone.tokenizer, model.tokens)
    assistant = Assistant(model, processor, TaskRouter({}))
    tone = (np.sin(np.arange(4000) / 3).astype(np.float32), 8000)
    frames = np.stack([SQUARE, SQUARE[:, ::-1]])
    assistant.reply("Which number was dialled?", image=SQUARE, video=frames, audio=tone, max_new_tokens=2)
    assistant.reply("And now?", audio=tone, max_new_tokens=2)
    shown = [[part.kind for part in turn.parts if isinstance(part, Media)] for turn in assistant.memory.turns]
    assert shown == [["image", "video", "audio"], [], ["audio"], []]
    example = processor.encode(Sample(turns=assistant.memory.turns[:3]), prompt=True)
    slots = sorted((item.slots[0], kind) for kind, items in example.media.items() for item in items)
    assert [kind for _, kind in slots] == ["image", "video", "audio", "audio"]


def test_a_picture_made_in_one_turn_is_seen_in_the_next(nodes, monkeypatch):
    """Nothing is scripted but the ids that are chosen: slot, de-tokenizer and the next turn's input are real."""
    decoder = {"name": "pixel_decoder", "from": "heads.image", "size": 32, "grid": 4, "dim": 16, "depth": 1}
    model = compose(**{**nodes, "detokenizers": {"image": decoder}}).eval()
    processor = Processor(model.spec(), model.backbone.tokenizer, model.tokens)
    opener, seen = processor.encoder.ids("<img>")[0], []
    script = iter([opener, opener, processor.stop_id, *processor.encoder.ids("a"), processor.stop_id])

    def unembed(states, rows=None):
        return torch.nn.functional.one_hot(torch.tensor([next(script)]), model.backbone.vocab_size).float()

    encode = model.encode
    monkeypatch.setattr(model.backbone, "unembed", unembed)
    monkeypatch.setattr(model, "encode", lambda batch: seen.append(batch) or encode(batch))
    assistant = Assistant(model, processor, TaskRouter({}))
    first = assistant.reply("Draw two.")
    assert len(first.artifacts) == 2 and first.problems == ()
    assistant.reply("What is it?")
    before, after = seen
    assert "image" not in before.media and after.media["image"].values.shape[0] == 1
    shown = processor([_picture_sample(first.artifacts[1].data)], prompt=True)
    torch.testing.assert_close(after.media["image"].values, shown.media["image"].values)
    targets = after.outputs["image"].target
    assert len(targets) == 2 and not torch.equal(targets[0], targets[1])


def _picture_sample(picture):
    return Sample(turns=(Turn(role="user", parts=(Media(kind="image", source=picture), Text(text="x"))),))
