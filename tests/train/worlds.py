"""A model of a few numbers and its data, small enough that a training step takes microseconds."""

import torch
from torch import Tensor, nn

from mmunify.recipe import Stage
from mmunify.recipe.fields import Optim
from mmunify.train.callbacks import quiet
from mmunify.train.learns import apply_learns
from mmunify.train.loader import WindowLoader
from mmunify.train.module import StageModule
from mmunify.train.trainer import make_trainer
from mmunify.types import Attention, Batch, StepReport


class Tower(nn.Module):
    """A frozen thing with everything that must keep still: dropout, batch statistics, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm, self.dropout = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.norm(self.linear(x)))


class ToyModel(nn.Module):
    """Parts named as in a unified model. Two losses with different counts, and one auxiliary scalar."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoders = nn.ModuleDict({"image": Tower()})
        self.adapters = nn.ModuleDict({"image": nn.Linear(4, 4)})
        self.backbone = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 4))
        self.weights = {"text": 1.0, "odd": 0.5}
        self.double()

    def counts(self, batch: Batch) -> None:
        """Its forward pass tells."""

    def forward(self, batch: Batch) -> StepReport:
        x = batch.input_ids.double().unsqueeze(-1) * torch.tensor([0.1, 0.2, -0.1, 0.3], dtype=torch.float64)
        states = self.backbone(self.adapters["image"](self.encoders["image"](x.flatten(0, 1)).view_as(x)))
        error = (states - torch.sin(x * 3)).square().sum(-1) * batch.attention.valid
        odd = batch.input_ids[:, 0] % 2 == 1
        return StepReport(
            losses={
                "text/error": error.sum(),
                "odd/sum": ((states * batch.attention.valid.unsqueeze(-1))[odd].sum(-1).square().sum()),
            },
            counts={"text/error": batch.attention.valid.sum(), "odd/sum": odd.sum()},
            weights={"text/error": self.weights["text"], "odd/sum": self.weights["odd"]},
            aux={"balance": 0.01 * self.backbone[0].weight.square().mean()},
        )


class ToyProcessor:
    """Numbers -> batches: number k becomes a row of 1 + k % 3 positions that all hold k."""

    def encode(self, sample: int) -> int:
        return sample

    def collate(self, examples: list[int]) -> Batch:
        length = max(1 + k % 3 for k in examples)
        valid = torch.tensor([[t < 1 + k % 3 for t in range(length)] for k in examples])
        ids = torch.tensor(examples)[:, None].expand(-1, length)
        zeros = torch.zeros_like(ids)
        return Batch(
            input_ids=ids,
            labels=ids,
            position_ids=zeros,
            attention=Attention(document=zeros, segment=zeros, full=zeros.bool(), valid=valid),
            task=torch.zeros(len(examples), dtype=torch.long),
            sample_ids=tuple(f"sample-{k}" for k in examples),
            keys=tuple(examples),
        )


def toy_batch(*numbers: int) -> Batch:
    return ToyProcessor().collate(list(numbers))


def toy_stage(**changes) -> Stage:
    defaults = {"name": "toy", "learns": ["adapters.*", "backbone.*"], "steps": 4, "batch_size": 4, "clip": 0.0}
    return Stage(**{**defaults, "optim": Optim(lr=1e-2, warmup=0), **changes})


def toy_module(model: nn.Module, stage: Stage, samples=range(10_000)) -> StageModule:
    """A module whose model has the stage's `learns:` applied."""

    def make_loader(rank: int, world: int, pin: bool) -> WindowLoader:
        return WindowLoader(
            samples,
            ToyProcessor(),
            batch_size=stage.batch_size,
            steps=stage.steps,
            accumulate=stage.accumulate,
            rank=rank,
            world=world,
        )

    apply_learns(model, stage.learns)
    return StageModule(model, stage, make_loader)


def fit(module: StageModule, folder, callbacks=(), checkpoint=None) -> StageModule:
    """Run a stage on the CPU."""
    options, steps = {"accelerator": "cpu"}, module.stage.steps
    with quiet():
        trainer = make_trainer(options, steps=steps, callbacks=callbacks, loggers=[], folder=folder)
        trainer.fit(module, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    return module
