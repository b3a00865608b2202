"""What the training benchmark trains on: real captions and questions around pictures cut from a real photo."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CAPTIONS = "haotian-liu+LLaVA/llava/eval/table/caps_boxes_coco2014_val_80.jsonl"
QUESTIONS = "haotian-liu+LLaVA/playground/data/coco2014_val_qa_eval/qa90_questions.jsonl"
PHOTO = "facebookresearch+segment-anything/notebooks/images/dog.jpg"
SPECIALS = ("<unk>", "<s>", "</s>", "<pad>")
PIECES = 1200
"""Pieces that the tokenizer learns: about 1.3 per word of these texts, as Llama's has."""

NUM_PICTURES, PICTURE = 40, (480, 640)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What the samples look like.

    Attributes:
        name: of the workload.
        grid: a picture has grid * grid tokens.
        blind: share of samples without a picture.
        turns: fewest and most questions of a sample; every number between is as likely.
        captions: sentences of an answer: one caption of some picture, or several of the same.
    """

    name: str
    grid: int
    blind: float = 0.0
    turns: tuple[int, int] = (1, 3)
    captions: int = 1


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Captions by picture, and questions."""

    captions: Sequence[Sequence[str]]
    questions: Sequence[str]

    @property
    def all(self) -> list[str]:
        """Every text."""
        return [*(text for texts in self.captions for text in texts), *self.questions]


def read_texts(fixtures: Path) -> Texts:
    """The captions of 80 COCO pictures, and 90 questions of LLaVA's authors."""
    return Texts(
        captions=[record["captions"] for record in _records(fixtures / CAPTIONS)],
        questions=[record["text"] for record in _records(fixtures / QUESTIONS)],
    )


def write_samples(folder: Path, fixtures: Path, workload: Workload, number: int) -> Path:
    """A conversation file with its pictures beside it; the same for the same arguments."""
    texts, rng = read_texts(fixtures), np.random.default_rng(0)
    write_pictures(folder / "pictures", fixtures / PHOTO)
    blind = set(rng.permutation(number)[: round(workload.blind * number)].tolist())
    records = [_record(index, index in blind, workload, texts, rng) for index in range(number)]
    path = folder / f"{workload.name}.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def write_pictures(folder: Path, photo: Path) -> None:
    """Pieces of a photo as JPEG files of the size of COCO's."""
    from PIL import Image

    if folder.exists():
        return
    folder.mkdir(parents=True)
    whole, rng = Image.open(photo).convert("RGB"), np.random.default_rng(0)
    height, width = PICTURE
    whole = whole.resize((max(whole.width, 2 * width), max(whole.height, 2 * height)))
    for number in range(NUM_PICTURES):
        left, top = rng.integers(0, [whole.width - width, whole.height - height]).tolist()
        whole.crop((left, top, left + width, top + height)).save(folder / f"{number}.jpg", quality=90)


def write_tokenizer(folder: Path, texts: Sequence[str], vocabulary: int) -> Any:
    """A tokenizer that learned the texts; pieces that never occur fill the vocabulary, "<image>" is the last entry."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    wanted = min(PIECES, vocabulary - 1)
    trainer = trainers.BpeTrainer(
        vocab_size=wanted, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False
    )
    learned.train_from_iterator(texts, trainer)
    pieces = learned.get_vocab()
    pieces |= {f"<filler {number}>": number for number in range(len(pieces), vocabulary - 1)}
    merges = [tuple(pair) for pair in json.loads(learned.to_str())["model"]["merges"]]
    whole = Tokenizer(models.BPE(vocab={**pieces, "<image>": vocabulary - 1}, merges=merges))
    whole.pre_tokenizer = learned.pre_tokenizer
    whole.decoder = decoders.ByteLevel()
    names = dict(zip(("unk_token", "bos_token", "eos_token", "pad_token"), SPECIALS, strict=True))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=whole, **names)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _records(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def _record(index: int, blind: bool, workload: Workload, texts: Texts, rng: np.random.Generator) -> dict[str, Any]:
    turns = []
    for _ in range(rng.integers(workload.turns[0], workload.turns[1] + 1)):
        captions = texts.captions[rng.integers(len(texts.captions))]
        said = rng.permutation(len(captions))[: workload.captions]
        turns.append({"from": "human", "value": texts.questions[rng.integers(len(texts.questions))]})
        turns.append({"from": "gpt", "value": " ".join(captions[number] for number in said)})
    picture = f"pictures/{rng.integers(NUM_PICTURES)}.jpg"
    if blind:
        return {"id": str(index), "conversations": turns}
    turns[0]["value"] = f"<image>\n{turns[0]['value']}"
    return {"id": str(index), "image": picture, "conversations": turns}
