from dataclasses import replace

import pytest
import torch

from mmunify.train.totals import Entry, StepTotals, by_document, gather, tell, tell_counts
from mmunify.types import HeadOutput, StepReport
from tests.train.worlds import toy_batch

TASKS = ("none", "ask", "draw")


def report(*losses: float) -> StepReport:
    """A loss per document, of one position each; weight 2."""
    table = torch.tensor([losses, [1.0] * len(losses)], requires_grad=True)
    return StepReport(
        losses={"text/ce": table[0].sum()},
        counts={"text/ce": table[1].sum()},
        weights={"text/ce": 2.0},
        aux={"balance": torch.tensor(0.25)},
        outputs={"text": HeadOutput(documents={"ce": table}), "image": HeadOutput()},
    )


def batch(*tasks: int):
    return replace(toy_batch(*range(len(tasks))), task=torch.tensor(tasks))


def test_totals_add_over_batches_and_ranks():
    totals = StepTotals()
    for entry in [("text", 6.0, 2.0, 1.0), ("text", 2.0, 6.0, 1.0), ("image", 0.0, 0.0, 3.0), ("aux/b", 0.5, 1.0, 1.0)]:
        totals.add(*entry)
    assert totals.means() == {"text": 1.0, "image": 0.0, "aux/b": 0.5}
    assert totals.loss == 1.5


def test_tasks_of_a_mixed_step_have_their_own_losses():
    totals = gather([tell(report(1.0, 3.0, 5.0), batch(1, 2, 1), TASKS), tell(report(9.0), batch(2), TASKS)])
    metrics = totals.metrics()
    assert metrics["loss/task/ask/text/ce"] == 3.0 and metrics["loss/task/draw/text/ce"] == 6.0
    assert metrics["loss/text/ce"] == 4.5 and metrics["loss/aux/balance"] == 0.25
    assert metrics["loss"] == totals.loss == 2 * 4.5 + 0.25
    assert totals.tasks == {"ask", "draw"} and "loss/task/ask" not in metrics


def test_a_step_of_one_task_has_the_whole_loss_under_its_name():
    metrics = gather([tell(report(1.0, 3.0), batch(0, 0), TASKS)]).metrics()
    assert metrics["loss/task/none"] == metrics["loss"] == 4.25
    assert metrics["loss/task/none/text/ce"] == 2.0


def test_without_a_task_table_nothing_is_told_apart():
    entries, tasks = tell(report(1.0, 3.0), batch(1, 2), ())
    assert entries == [Entry("text/ce", 4.0, 2.0, 2.0), Entry("aux/balance", 0.25, 1.0, 1.0)] and tasks == set()


def test_losses_by_document_keep_their_graph():
    ((name, table),) = by_document(report(1.0, 3.0))
    assert name == "text/ce" and table.requires_grad


def test_all_ranks_tell_once(monkeypatch):
    asked = []

    def exchange(told):
        asked.append(told)
        return [*told, ([Entry("text/ce", 10.0, 1.0, 2.0)], {"draw"})]

    monkeypatch.setattr("mmunify.train.totals.exchange", exchange)
    totals = gather([tell(report(1.0, 3.0), batch(1, 1), TASKS)])
    assert len(asked) == 1 and totals.tasks == {"ask", "draw"}
    assert totals.means()["text/ce"] == pytest.approx(14 / 3)


def test_counts_alone_add_no_loss():
    totals = gather([tell_counts({"text/ce": torch.tensor(3)}), tell_counts({"text/ce": torch.tensor(4)})])
    assert totals.counts == {"text/ce": 7.0} and totals.loss == 0.0
