"""What encoders of still pictures share."""

from jaxtyping import Float
from torch import Tensor

from mmunify.errors import DataError


def single_frame(values: Float[Tensor, "M F C H W"], name: str) -> Float[Tensor, "M C H W"]:
    """Pictures without their frame axis.

    Raises:
        DataError: clips of several frames.
    """
    if values.shape[1] != 1:
        raise DataError(
            f"encoder {name!r} takes still pictures and got clips of {values.shape[1]} frames; "
            f"wrap it: {{name: frames, encoder: {{name: {name}, ...}}}}"
        )
    return values[:, 0]
