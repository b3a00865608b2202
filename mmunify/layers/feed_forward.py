"""The two-layer network of a transformer block."""

from jaxtyping import Float
from torch import Tensor, nn

from mmunify.errors import UserError

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}
"""Names that recipes use; "gelu" is the exact (erf) one."""


class FeedForward(nn.Module):
    """Linear, activation, dropout, linear.

    Args:
        dim: width in and out.
        hidden_dim: width between; None = 4 dim.
        activation: one of `ACTIVATIONS`.
        bias: whether the linears have one.
        dropout: after the activation.

    Raises:
        UserError: unknown activation.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int | None = None,
        activation: str = "gelu",
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise UserError(f"no activation named {activation!r}; known: {', '.join(ACTIVATIONS)}")
        self.expand = nn.Linear(dim, hidden_dim or 4 * dim, bias=bias)
        self.activation = ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout)
        self.reduce = nn.Linear(hidden_dim or 4 * dim, dim, bias=bias)

    def forward(self, states: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """Position by position."""
        return self.reduce(self.dropout(self.activation(self.expand(states))))
