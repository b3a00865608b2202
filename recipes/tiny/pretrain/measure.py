"""How good a pretrained tiny part is, on handwriting and numbers that it never saw. Prints JSON.

python recipes/tiny/pretrain/measure.py tower|audio_tower|video_tower|backbone|pixel_decoder|edits BUNDLE

`pixel_decoder` measures any de-tokenizer of pictures, `edits` one that starts from pictures (or that doesn't).
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import torch

from mmunify import DATASETS, Bundle, load_bundle
from mmunify.data.datasets.digit_motion import NOTHING
from mmunify.data.datasets.digit_tones import SILENCE
from mmunify.data.digit_world.scene import Scene
from mmunify.data.digit_world.words import name_of
from mmunify.evaluate.bench import make_bench
from mmunify.evaluate.reader import find_digits, read_box
from mmunify.evaluate.run import run_protocols
from mmunify.evaluate.scores import background_psnr, box_iou, psnr
from mmunify.evaluate.statistics import mean, rate
from mmunify.parts import Context
from mmunify.types import Batch, Sample

NUM_SAMPLES = 500


def batches(bundle: Bundle, node: dict, size: int = 100) -> Iterator[tuple[list[Sample], Batch]]:
    """Samples of a data set, and the model's batch of them."""
    data, processor = DATASETS.build(node), bundle.processor()
    for start in range(0, NUM_SAMPLES, size):
        samples = [data[index] for index in range(start, start + size)]
        yield samples, processor(samples)


def measure_tower(bundle: Bundle) -> dict:
    """Digit, colour and box at the patches of a digit."""
    hits: dict[str, list] = {"digit": [], "color": [], "box_iou": [], "objectness": []}
    for _, batch in batches(bundle, {"name": "digit_patches", "split": "test"}):
        said = bundle.model(batch).outputs["patches"].predictions
        target = batch.outputs["patches"].target
        inside = target[..., 0] > 0.5
        hits["objectness"] += ((said["objectness"] > 0.5) == inside).flatten().tolist()
        hits["digit"] += (said["class"] == target[..., 1])[inside].tolist()
        hits["color"] += (said["color"] == target[..., 2])[inside].tolist()
        pairs = zip(said["box"][inside].tolist(), target[..., 3:][inside].tolist(), strict=True)
        hits["box_iou"] += [box_iou(tuple(a), tuple(b)) for a, b in pairs]
    return {name: asdict(mean(values) if name == "box_iou" else rate(values)) for name, values in hits.items()}


def measure_audio_tower(bundle: Bundle) -> dict:
    """Keys and their count at 20 dB signal to noise."""
    return _measure_labels(bundle, {"name": "digit_tones", "split": "test", "snr": [20.0, 20.0]}, SILENCE)


def measure_video_tower(bundle: Bundle) -> dict:
    """Digit, colour, direction, plot, frame and rank of every digit; after the first stage, of what crosses a place."""
    movers = bundle.model.encoders["video"].num_queries
    return _measure_labels(bundle, {"name": "digit_motion", "split": "test", "num_movers": movers}, NOTHING)


def _measure_labels(bundle: Bundle, node: dict, nothing: int) -> dict:
    """Share of right labels over the tokens that show something, and whether they show anything over all of them."""
    hits: dict[str, list] = {}
    for _, batch in batches(bundle, node):
        ((kind, outputs),) = batch.outputs.items()
        said, target = bundle.model(batch).outputs[kind].predictions, outputs.target
        shown = target[..., 0] != nothing
        first = next(iter(said))
        hits.setdefault("anything", []).extend(((said[first] != nothing) == shown).flatten().tolist())
        for column, name in enumerate(said):
            hits.setdefault(name, []).extend((said[name] == target[..., column])[shown].tolist())
    return {name: asdict(rate(values)) for name, values in hits.items()}


def measure_backbone(bundle: Bundle) -> dict:
    """The protocols of the digit world, with every picture told in words."""
    data = {"name": "digit_text", "split": "test", "seed": 1000}
    bench = make_bench(bundle, data, batch_size=50, max_new_tokens=96, seed=0, report=lambda task, total: None)
    results = run_protocols(bench, ["caption", "question", "refer", "routing", "parse"], NUM_SAMPLES // 5)
    return {name: {key: asdict(value) for key, value in metrics.items()} for name, metrics in results.items()}


def draw(bundle: Bundle, targets: list[np.ndarray], sources: list[np.ndarray] | None = None) -> list[np.ndarray]:
    """Pictures (uint8 [H W 3]) through the tower and back, from source pictures if the de-tokenizer reads them."""
    encoder, detokenizer = bundle.model.encoders["image"], bundle.model.detokenizers["image"]
    preprocess, pixels = encoder.preprocess, _pixels(targets)
    mean_, std = (torch.tensor(numbers).view(1, -1, 1, 1) for numbers in (preprocess.mean, preprocess.std))
    states = encoder(((pixels - mean_) / std).unsqueeze(1), Context(kind="image")).tokens
    image = _pixels(sources) if sources is not None and "image" in detokenizer.needs else None
    made = detokenizer.generate(bundle.model.link("image").condition(states, image))
    return list((made * 255).round().byte().permute(0, 2, 3, 1).numpy())


def _pixels(pictures: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255


def count_digits(picture: np.ndarray, scene: Scene) -> list[bool]:
    """Of every digit of a scene: whether it is read in a picture, at its place and in its colour."""
    found = [read_box(picture, digit.norm_box(scene.size)) for digit in scene.digits]
    return [it is not None and it.name == name_of(digit) for it, digit in zip(found, scene.digits, strict=True)]


def measure_pixel_decoder(bundle: Bundle) -> dict:
    """Pictures through the tower and back: distance to the original, and whether the digits can still be read.

    digits_read: share of the digits; all_digits_read: of the scenes in which every digit, and no other, is found.
    """
    rows: dict[str, list] = {"psnr": [], "digits_read": [], "all_digits_read": [], "digits_read_in_originals": []}
    for samples, _ in batches(bundle, {"name": "digit_world", "split": "test", "tasks": ["caption"]}):
        originals, scenes = ([sample.turns[0].parts[0].source for sample in samples], _scenes(samples))
        for original, scene, picture in zip(originals, scenes, draw(bundle, originals), strict=True):
            wanted = sorted(name_of(digit) for digit in scene.digits)
            rows["psnr"].append(psnr(original, picture))
            rows["digits_read"] += count_digits(picture, scene)
            rows["all_digits_read"].append(sorted(found.name for found in find_digits(picture)) == wanted)
            rows["digits_read_in_originals"] += count_digits(original, scene)
    return {name: asdict(mean(values) if name == "psnr" else rate(values)) for name, values in rows.items()}


def measure_edits(bundle: Bundle) -> dict:
    """Edited pictures, from their own features and the picture before: what the edit left alone, and the digits."""
    rows: dict[str, list] = {"background_psnr": [], "all_digits_read": []}
    node = {"name": "digit_world", "split": "test", "tasks": ["remove", "recolor", "replace"]}
    for samples, _ in batches(bundle, node):
        sources = [sample.turns[0].parts[0].source for sample in samples]
        targets = [sample.facts["target"] for sample in samples]
        for source, target, picture in zip(sources, targets, draw(bundle, targets, sources), strict=True):
            changed = (source != target).any(axis=-1)
            rows["background_psnr"].append(background_psnr(target, picture, changed))
            read = sorted(found.name for found in find_digits(picture))
            rows["all_digits_read"].append(read == sorted(found.name for found in find_digits(target)))
    read, distance = rate(rows["all_digits_read"]), mean(rows["background_psnr"])
    return {"background_psnr": asdict(distance), "all_digits_read": asdict(read)}


def _scenes(samples: list[Sample]) -> list[Scene]:
    return [sample.facts["scene"] for sample in samples]


if __name__ == "__main__":
    measure = {
        "tower": measure_tower,
        "audio_tower": measure_audio_tower,
        "video_tower": measure_video_tower,
        "backbone": measure_backbone,
        "pixel_decoder": measure_pixel_decoder,
        "edits": measure_edits,
    }
    trained = load_bundle(sys.argv[2])
    trained.model.eval()
    with torch.inference_mode():
        sys.stdout.write(json.dumps(measure[sys.argv[1]](trained), indent=2) + "\n")
