"""UnifiedModel: placement, frozen parts, missing media, losses as sums."""

from dataclasses import replace

import pytest
import torch

from mmunify.composer import compose
from mmunify.errors import PlacementError
from mmunify.model import place
from mmunify.parts import Context
from mmunify.types import Embeds


def test_report_holds_sums_and_counts_of_every_head(model, processor, make_sample):
    batch = processor([make_sample("a", 1, 1), make_sample("bb", 0, 2), make_sample("ccc", 2)])
    report = model.train()(batch)
    assert set(report.losses) == {"text/cross_entropy", "image/mse"}
    assert int(report.counts["text/cross_entropy"]) == int((batch.labels != -100).sum())
    assert int(report.counts["image/mse"]) == 3
    by_hand = sum(report.losses[name] / report.counts[name] for name in report.losses)
    torch.testing.assert_close(report.total, by_hand)


def test_weights_scale_losses_and_zero_skips_the_head(nodes, processor, make_sample):
    batch = processor([make_sample("a", 1, 1)])
    plain, weighted = compose(**nodes)(batch), compose(**nodes, weights={"image": 6.0})(batch)
    difference = weighted.total - plain.total
    torch.testing.assert_close(difference, 5 * plain.losses["image/mse"])
    assert set(compose(**nodes, weights={"image": 0})(batch).losses) == {"text/cross_entropy"}


def test_sums_of_a_batch_are_the_sums_of_its_samples(model, processor, make_sample):
    samples = [make_sample("a", 2, 1), make_sample("bb", 0, 0), make_sample("cccc", 1, 2), make_sample("d", 3, 0)]
    model.eval()
    together = model(processor(samples)).losses
    alone = [model(processor([sample])).losses for sample in samples]
    for name, loss in together.items():
        torch.testing.assert_close(loss, sum(losses[name] for losses in alone), rtol=1e-5, atol=1e-5)


def test_every_media_item_of_a_sample_reaches_the_backbone(model, processor, make_sample):
    batch = processor([make_sample("two", 2)])
    embeds = model.embed(batch, model.encode(batch))
    items = embeds[batch.media["image"].slots].reshape(2, 16, -1)
    adapted = model.adapters["image"](model.encode(batch)["image"], Context()).tokens
    torch.testing.assert_close(items, adapted)
    assert not torch.allclose(items[0], items[1])


def test_learning_parts_take_part_without_any_medium(model, processor, make_sample):
    model.train()(processor([make_sample("text only", 0)])).total.backward()
    missing = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None and not name.startswith("encoders.")
    ]
    assert missing == []
    assert all(float(p.grad.abs().sum()) == 0 for p in model.adapters.parameters())


def test_frozen_encoder_builds_no_graph_and_stays_in_eval_mode(model, processor, make_sample):
    model.encoders.requires_grad_(False)
    model.train()
    assert not any(module.training for module in model.encoders["image"].modules())
    assert model.backbone.training
    features = model.encode(processor([make_sample("a")]))["image"]
    assert not features.tokens.requires_grad


def test_wrong_number_of_embeddings_names_node_numbers_and_sample(model, processor, make_sample):
    batch = processor([make_sample("apple")])
    embeds = torch.zeros(*batch.input_ids.shape, 4)
    items = Embeds(tokens=torch.zeros(1, 15, 4))
    with pytest.raises(PlacementError, match=r"'image' made 15 embeddings for 16 slots .* first sample 'apple'"):
        place(embeds, batch.media["image"].slots, items, "image", batch)


def test_masked_slots_are_left_out(processor, make_sample):
    batch = processor([make_sample("apple")])
    slots = batch.media["image"].slots.clone()
    slots[slots.nonzero()[0][0], slots.nonzero()[0][1]] = False
    mask = torch.ones(1, 16, dtype=torch.bool)
    mask[0, 0] = False
    embeds = torch.zeros(*batch.input_ids.shape, 4)
    made = place(embeds, slots, Embeds(tokens=torch.ones(1, 16, 4), mask=mask), "image", batch)
    assert float(made.sum()) == 15 * 4


def test_logits_never_exist_for_the_whole_sequence(model, processor, make_sample, monkeypatch):
    rows = []
    unembed = model.backbone.unembed
    counted = lambda states, r=None: rows.append(len(states)) or unembed(states, r)  # noqa: E731
    monkeypatch.setattr(model.backbone, "unembed", counted)
    batch = processor([make_sample("apple", 2)])
    model(batch)
    supervised = int((batch.labels != -100).sum())
    assert supervised <= sum(rows) < supervised + 128


def test_cached_features_give_the_same_losses(model, processor, make_sample):
    batch = processor([make_sample("a", 2), make_sample("b", 1)])
    features = model.encode(batch)["image"]
    cached = replace(batch, media={"image": replace(batch.media["image"], values=None, features=features)})
    torch.testing.assert_close(model(cached).total, model(batch).total)


def test_a_learning_detokenizer_takes_part_in_a_step_without_pictures(nodes, make_sample):
    from mmunify.data.processor import Processor

    decoder = {"name": "pixel_decoder", "from": "encoders.image", "size": 32, "grid": 4, "dim": 16, "depth": 1}
    model = compose(**{**nodes, "detokenizers": {"image": decoder}}).train()
    processor = Processor(model.spec(), model.backbone.tokenizer, model.tokens)
    with_picture = model(processor([make_sample("a", 1)]))
    without = model(processor([make_sample("a", 0)]))
    names = [name for name in with_picture.losses if name.startswith("detokenizers.image/")]
    assert names and all(float(with_picture.losses[name].detach()) > 0 for name in names)
    assert all(float(without.losses[name].detach()) == 0 for name in names)
    without.total.backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) == 0 for p in model.detokenizers.parameters())


def test_a_frozen_detokenizer_teaches_its_head_if_it_is_given_a_weight(nodes, make_sample):
    """Without a weight its pictures would cost time that nobody asked for."""
    from mmunify.data.processor import Processor

    decoder = {"name": "pixel_decoder", "size": 32, "grid": 4, "dim": 16, "depth": 1}
    heads = {"text": {"name": "text"}, "image": {"name": "queries", "num_queries": 16, "target": "image"}}
    drawing = {**nodes, "heads": heads, "detokenizers": {"image": decoder}}
    taught = {}
    for weights in ({}, {"detokenizers.image": 1.0}, {"detokenizers.image": 0.0}):
        model = compose(**drawing, weights={"image": 0.0001, **weights}).train()
        model.detokenizers.requires_grad_(False)
        report = model(Processor(model.spec(), model.backbone.tokenizer, model.tokens)([make_sample("a", 1, 1)]))
        taught[weights.get("detokenizers.image")] = "detokenizers.image/l1" in report.losses
        if taught[weights.get("detokenizers.image")]:
            report.losses["detokenizers.image/l1"].backward()
            assert float(model.heads["image"].queries.grad.abs().sum()) > 0
    assert taught == {None: False, 1.0: True, 0.0: False}


def test_a_learning_encoder_takes_part_in_a_step_without_media(model, processor, make_sample):
    model.train()(processor([make_sample("text only", 0)])).total.backward()
    grads = [parameter.grad for parameter in model.encoders.parameters()]
    assert grads and all(grad is not None and float(grad.abs().sum()) == 0 for grad in grads)


def test_counts_are_told_without_a_pass_where_every_part_can(nodes, processor, make_sample):
    batch = processor([make_sample("a", 1, 1), make_sample("bb", 0, 2)])
    words_alone = compose(**nodes, weights={"image": 0}).train()
    assert words_alone.counts(batch) == words_alone(batch).counts
    assert compose(**nodes).counts(batch) is None
    decoder = {"name": "pixel_decoder", "from": "encoders.image", "size": 32, "grid": 4, "dim": 16, "depth": 1}
    drawing = compose(**{**nodes, "detokenizers": {"image": decoder}}, weights={"image": 0})
    assert drawing.train().counts(batch) is None
