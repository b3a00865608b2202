"""The whole evaluation with an oracle (everything right) and with models that are wrong in known ways."""

import math
from types import SimpleNamespace

import pytest

from mmunify.errors import UserError
from mmunify.evaluate.answers import AnswerReader
from mmunify.evaluate.bench import Bench
from mmunify.evaluate.run import ALL_TASKS, run_protocols
from mmunify.registry import METRICS
from mmunify.tokens import TokenRegistry
from mmunify.types import ModelSpec, NodeSpec
from tests.evaluate.worlds import SAMPLES, bench

RATES = {
    "caption": ["exact_match"],
    "question": ["accuracy"],
    "refer": ["precision_at_50"],
    "segment": ["ciou", "giou"],
    "layout": ["precision", "recall", "accuracy", "relation_accuracy", "placement"],
    "routing": ["accuracy", "call_accuracy", "abstention"],
    "parse": ["rate"],
}


def oracle(text, texts, index, blank):
    return texts[(index + 7) % len(texts)] if blank else text


def shifted(text, texts, index, blank):
    return texts[(index + 7) % len(texts)]


@pytest.fixture(scope="module")
def right():
    return run_protocols(bench(oracle, ALL_TASKS), num_samples=SAMPLES)


@pytest.fixture(scope="module")
def wrong():
    return run_protocols(bench(shifted, ALL_TASKS), num_samples=SAMPLES)


def test_every_registered_protocol_runs(right):
    others = {"dialled_number", "video_question"}  # this bench reads pictures alone
    assert sorted(right) == sorted({*METRICS.names()} - others) == sorted([*RATES, "dialogue", "edit", "generation"])


@pytest.mark.parametrize(("protocol", "metric"), [(p, m) for p, metrics in RATES.items() for m in metrics])
def test_the_oracle_is_right_everywhere(right, protocol, metric):
    measure = right[protocol][metric]
    assert measure.value == pytest.approx(1.0, abs=1e-5)
    assert measure.low <= measure.value <= measure.high <= 1.0 + 1e-9


def test_the_oracles_pictures_can_be_read(right):
    # the reader is a classifier of its own: it misreads about one digit in seventy
    assert right["edit"]["success"].value > 0.95
    assert right["layout"]["read_back_digits"].value > 0.9
    assert right["generation"]["read_back_digits"].value > 0.9


def test_answers_of_other_samples_are_near_chance(wrong):
    assert wrong["caption"]["exact_match"].value < 0.1
    assert wrong["refer"]["precision_at_50"].value < 0.2
    assert wrong["segment"]["ciou"].value < 0.2
    assert wrong["generation"]["read_back"].value == 0.0
    assert wrong["layout"]["recall"].value < 0.3
    # whatever the sample, its task is the same: routing and syntax stay right
    assert wrong["parse"]["rate"].value == 1.0


def test_call_protocols_have_the_ceiling_and_chance_beside_them(wrong):
    for protocol, metric in (("segment", "ciou"), ("edit", "success"), ("layout", "placement")):
        scores = wrong[protocol]
        assert scores[f"{metric}_truth"].value > 0.9
        assert scores[f"{metric}_random"].value < 0.6
        assert scores[f"{metric}_truth"].n == scores[metric].n == scores[f"{metric}_random"].n


def test_the_blanked_baseline_is_the_same_model_on_other_input(right, wrong):
    pairs = {"caption": "exact_match", "question": "accuracy", "refer": "iou", "segment": "giou"}
    for protocol, metric in pairs.items():
        assert right[protocol][f"{metric}_blank"].value == wrong[protocol][metric].value
    assert not any(name.endswith("_blank") for name in right["layout"])


def test_sample_numbers(right):
    assert right["caption"]["exact_match"].n == SAMPLES
    assert right["edit"]["success"].n == 4 * SAMPLES
    assert right["edit"]["background_psnr"].n == 3 * SAMPLES
    assert right["routing"]["accuracy"].n == right["parse"]["rate"].n == SAMPLES * len(ALL_TASKS)


def test_one_protocol_answers_only_its_tasks():
    scores = run_protocols(bench(oracle, ["refer"]), ["refer"], num_samples=5)
    assert list(scores) == ["refer"]
    assert scores["refer"]["iou"].n == 5


def test_baselines_can_be_left_out():
    scores = run_protocols(bench(oracle, ["segment"]), ["segment"], num_samples=3, baselines=False)
    assert set(scores["segment"]) == {"ciou", "giou"}


def test_the_task_and_the_facts_stay_hidden():
    seen = []
    watched = bench(oracle, ["segment"])
    respond = watched.respond
    object.__setattr__(watched, "respond", lambda asked, blank: seen.extend(asked) or respond(asked, blank))
    run_protocols(watched, ["segment"], num_samples=3)
    assert len(seen) == 6
    assert all(sample.task == "" and not sample.facts and sample.turns[-1].role == "user" for sample in seen)


def test_tasks_without_tokens_are_skipped_or_refused():
    reader = AnswerReader(tokens=TokenRegistry(tasks=("segment",)))
    scores = run_protocols(bench(oracle, ALL_TASKS, reader), num_samples=6)
    assert not {"edit", "layout", "generation"} & set(scores)
    assert scores["segment"]["ciou"].value == pytest.approx(1.0)
    with pytest.raises(UserError, match="protocol 'layout' needs one of the tasks .*layout_to_image"):
        run_protocols(bench(oracle, ["layout_to_image"], reader), ["layout"], num_samples=3)


def test_tasks_with_data_of_their_own_are_asked_where_the_model_reads_their_media():
    asked = []

    def respond(samples, blank):
        asked.extend(samples)
        return [SimpleNamespace(text="red 7[left]", predictions={}, finished=True) for _ in samples]

    spec = ModelSpec(media={"clips": NodeSpec(kind="video", slot=None, preprocess=None)})
    reader = AnswerReader(tokens=TokenRegistry(), spec=spec)
    watching = Bench(respond=respond, reader=reader, run=lambda answer: [], data={"split": "test", "seed": 5})
    scores = run_protocols(watching, ["video_question"], num_samples=4)["video_question"]
    assert {"direction", "direction_blank", "order"} < set(scores) and scores["order"].n == 4
    assert {sample.turns[0].parts[0].kind for sample in asked} == {"video"} and "-test-5-" in asked[0].id
    with pytest.raises(UserError, match="protocol 'dialled_number' needs .*; the model reads none of their media"):
        run_protocols(watching, ["dialled_number"], num_samples=4)


def test_an_unknown_protocol_gets_a_hint():
    with pytest.raises(UserError, match="no protocol named 'captoin'; did you mean 'caption'"):
        run_protocols(bench(oracle, ["caption"]), ["captoin"])


def test_results_hold_no_empty_metric(right):
    assert all(not math.isnan(m.value) and m.n for scores in right.values() for m in scores.values())
