"""Rows of added tokens: published tables are often longer than their tokenizers, and added tokens fall on the rest."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from mmunify.parts import Backbone


def adopt_padding(backbone: Backbone, kept: Callable[[str], bool]) -> None:
    """Let added tokens whose ids lie within the tables start from the rows that the tables have there.

    So their logits are those of the published model, which counts these rows too.

    Args:
        backbone: with added tokens or without.
        kept: whether a group (`new_rows.<group>`) keeps its own rows.
    """
    with torch.no_grad():
        for kind, table, groups in _tables(backbone):
            for start, rows in _placed(backbone, groups, lambda group, kind=kind: not kept(f"{kind}.{group}")):
                known = table[start : start + len(rows)]
                rows[: len(known)].copy_(known)


def whole_tables(backbone: Backbone, kept: Callable[[str], bool]) -> dict[str, Tensor]:
    """The backbone's tables with the rows of added tokens in their places, by names of its state dict.

    Args:
        backbone: with added tokens or without.
        kept: whether the table keeps its own input rows where a group of tokens (`new_rows.<group>`) stands: the group
            is written elsewhere.
    """
    whole: dict[str, Tensor] = {}
    for kind, table, groups in _tables(backbone):
        longer = torch.zeros(max(len(table), backbone.vocab_size), table.shape[1], dtype=table.dtype)  # type: ignore[attr-defined]
        longer[: len(table)] = table.detach()
        for start, rows in _placed(backbone, groups, lambda group, kind=kind: not kept(f"{kind}.{group}")):
            longer[start : start + len(rows)] = rows.detach()
        whole |= {name: longer for name, found in backbone.state_dict(keep_vars=True).items() if found is table}
    return whole


def _tables(backbone: Backbone) -> Iterator[tuple[str, Tensor, nn.ParameterDict]]:
    """Attribute, table and added groups of the input side, and of the output side where it is another table."""
    lm: nn.Module = backbone.lm  # type: ignore[assignment]
    yield "new_rows", lm.get_input_embeddings().weight, backbone.new_rows  # type: ignore[operator, misc]
    if not backbone.is_tied:
        yield "new_output_rows", lm.get_output_embeddings().weight, backbone.new_output_rows  # type: ignore[operator, misc]


def _placed(
    backbone: Backbone, groups: nn.ParameterDict, chosen: Callable[[str], bool]
) -> Iterator[tuple[int, nn.Parameter]]:
    """First id and rows of every chosen group; groups follow each other."""
    start: int = backbone.num_old_rows  # type: ignore[assignment]
    for group, rows in groups.items():
        if chosen(group):
            yield start, rows
        start += len(rows)
