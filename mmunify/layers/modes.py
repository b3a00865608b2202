"""Training and eval mode by what learns."""

from torch import nn

from mmunify.layers.shapes import shape_of


def set_modes(module: nn.Module, mode: bool = True) -> None:
    """Training mode where most parameters of a module learn, eval mode elsewhere; without parameters, as its parent.

    So the dropout and the normalisation of a frozen tower stay still, also when low-rank experts learn inside it,
    and those of the experts themselves are active. The root is left in training mode.

    Args:
        module: whose children are set.
        mode: what a module without parameters gets.
    """
    module.training = mode
    for child in module.children():
        parameters = list(child.parameters())
        trained = sum(shape_of(p).numel() for p in parameters if p.requires_grad)
        total = sum(shape_of(p).numel() for p in parameters)
        set_modes(child, 2 * trained >= total if parameters else mode)
