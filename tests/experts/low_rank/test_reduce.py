"""Sums over ranks, inside one process and over two."""

import torch

from mmunify.experts.low_rank._reduce import sum_over_ranks
from mmunify.experts.low_rank._telemetry import GateTelemetry
from mmunify.experts.low_rank.lora_moe import LoRAMoETuner
from tests.two_processes import run_in_two_processes


def test_one_process_has_its_own_sum():
    values = torch.randn(3, requires_grad=True)
    for over_ranks in (True, False):
        assert sum_over_ranks(values, over_ranks) is values


def summed(rank):
    """Values, their sum, and the gradient of a loss that every rank computes from the sum in its own way."""
    values = torch.tensor([1.0 + rank, 10.0 * rank], dtype=torch.float64, requires_grad=True)
    total = sum_over_ranks(values)
    ((1 + rank) * total.square()).sum().backward()
    alone = sum_over_ranks(values, over_ranks=False)
    return {"total": total.detach(), "grad": values.grad, "is_alone": alone is values, "values": values.detach()}


def counted(rank):
    """Telemetry of both ranks; rank 0 sees one token, rank 1 three."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4))
    LoRAMoETuner("0", rank=1, num_experts=2).apply(model)
    x = torch.arange(16.0).sin().view(4, 4)
    telemetry = {}
    for name, rows in (("part", slice(0, 1) if rank == 0 else slice(1, 4)), ("whole", slice(0, 4))):
        model(x[rows])
        telemetry[name] = GateTelemetry()
        telemetry[name].update(model)
    part, whole = telemetry["part"].figures().layers["0"], telemetry["whole"].figures(over_ranks=False).layers["0"]
    return {"part": part, "whole": whole, "own": telemetry["part"].figures(over_ranks=False).layers["0"]}


def run_rank(rank):
    return {**summed(rank), **counted(rank)}


def test_two_processes_have_the_sum_of_both_and_gradients_of_both_losses(tmp_path):
    found = run_in_two_processes(run_rank, tmp_path)
    assert found["total"].tolist() == [3.0, 10.0]
    # both losses depend on rank 1's values: d/dv (1 * s^2 + 2 * s^2) = 6 s
    assert found["grad"].tolist() == [18.0, 60.0]
    assert found["is_alone"] and found["values"].tolist() == [2.0, 10.0]
    assert found["own"].tokens == [3.0] and found["part"].tokens == found["whole"].tokens == [4.0]
    torch.testing.assert_close(found["part"].weights, found["whole"].weights)
    torch.testing.assert_close(found["part"].entropy, found["whole"].entropy)
