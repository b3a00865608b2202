"""How good a pretrained tiny part is, on handwriting that it never saw. Prints JSON.

python recipes/tiny/pretrain/measure.py tower|backbone|pixel_decoder BUNDLE
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict

import torch

from mmunify import DATASETS, Bundle, load_bundle
from mmunify.evaluate.bench import make_bench
from mmunify.evaluate.reader import find_digits
from mmunify.evaluate.run import run_protocols
from mmunify.evaluate.scores import box_iou, psnr
from mmunify.evaluate.statistics import mean, rate
from mmunify.types import Batch, Condition, Sample

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


def measure_backbone(bundle: Bundle) -> dict:
    """The protocols of the digit world, with every picture told in words."""
    data = {"name": "digit_text", "split": "test", "seed": 1000}
    bench = make_bench(bundle, data, batch_size=50, max_new_tokens=96, seed=0, report=lambda task, total: None)
    results = run_protocols(bench, ["caption", "question", "refer", "routing", "parse"], NUM_SAMPLES // 5)
    return {name: {key: asdict(value) for key, value in metrics.items()} for name, metrics in results.items()}


def measure_pixel_decoder(bundle: Bundle) -> dict:
    """Pictures through the tower and back: distance to the original, and whether the digits can still be read."""
    distances, read = [], []
    for samples, batch in batches(bundle, {"name": "digit_world", "split": "test", "tasks": ["caption"]}):
        features = bundle.model.encode(batch)["image"]
        made = bundle.model.detokenizers["image"].generate(Condition(states=features.tokens))
        for sample, picture in zip(samples, (made * 255).byte().permute(0, 2, 3, 1).numpy(), strict=True):
            distances.append(psnr(sample.turns[0].parts[0].source, picture))
            wanted = sorted(f"{digit.color} {digit.digit}" for digit in sample.facts["scene"].digits)
            read.append(sorted(found.name for found in find_digits(picture)) == wanted)
    return {"psnr": asdict(mean(distances)), "all_digits_read": asdict(rate(read))}


if __name__ == "__main__":
    measure = {"tower": measure_tower, "backbone": measure_backbone, "pixel_decoder": measure_pixel_decoder}
    trained = load_bundle(sys.argv[2])
    trained.model.eval()
    with torch.inference_mode():
        sys.stdout.write(json.dumps(measure[sys.argv[1]](trained), indent=2) + "\n")
