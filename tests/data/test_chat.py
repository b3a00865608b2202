"""Chat templates: what is said around turns, and what is learned."""

import pytest

from mmunify.data.chat import CHATS, render
from mmunify.errors import DataError
from mmunify.types import Media, Sample, Text, Turn


def talk(*turns):
    return Sample(turns=tuple(Turn(role=role, parts=(Text(text=text),)) for role, text in turns), id="talk")


def flat(sample, name, **kwargs):
    segments = list(render(sample, CHATS[name], "</s>", **kwargs))
    return "".join(s.part.text for s in segments), "".join(s.part.text for s in segments if s.learned)


def test_vicuna_is_llavas_format_and_only_answers_are_learned():
    sample = talk(("user", "hi"), ("assistant", "hello"), ("user", "bye"), ("assistant", "ciao"))
    whole, learned = flat(sample, "vicuna")
    assert whole == "USER: hi ASSISTANT: hello</s>USER: bye ASSISTANT: ciao</s>"
    assert learned == " hello</s> ciao</s>"


def test_a_prompt_is_a_prefix_of_its_conversation():
    for name in CHATS:
        prompt, _ = flat(talk(("user", "hi")), name, prompt=True)
        whole, _ = flat(talk(("user", "hi"), ("assistant", "hello")), name)
        assert whole.startswith(prompt)


def test_llama3_and_chatml_formats():
    sample = talk(("system", "be kind"), ("user", "hi"), ("assistant", "yo"))
    assert flat(sample, "chatml")[0] == (
        "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n"
    )
    assert flat(sample, "llama3")[1] == "yo<|eot_id|>"


def test_learned_flags_of_texts_win_over_roles():
    parts = (Text(text="a", learned=False), Text(text="b"))
    sample = Sample(turns=(Turn(role="assistant", parts=parts),))
    assert flat(sample, "plain")[1] == "b</s>"


def test_the_lead_goes_to_the_first_words_after_a_medium():
    parts = (Media(kind="image"), Text(text="what"), Text(text="?"))
    segments = list(render(Sample(turns=(Turn(role="user", parts=parts),)), CHATS["vicuna"], ""))
    assert [s.part.text for s in segments if isinstance(s.part, Text)] == ["USER:", " what", "?", ""]


def test_bad_samples():
    with pytest.raises(DataError, match="'x' has no turns"):
        list(render(Sample(turns=(), id="x"), CHATS["plain"], ""))
    with pytest.raises(DataError, match="ends with the assistant's turn"):
        list(render(talk(("assistant", "a")), CHATS["plain"], "", prompt=True))
