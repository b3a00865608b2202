"""The noise of diffusion models, with the schedules of diffusers."""

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmunify.layers.denoising import Noised
from mmunify.layers.streams import Streams

Prediction = Literal["epsilon", "v_prediction", "sample"]


class DiffusionNoise:
    """x_t = sqrt(a_t) x + sqrt(1 - a_t) e at a uniform integer t (https://arxiv.org/abs/2006.11239).

    Args:
        scheduler: of diffusers; its betas are those of the training, and it samples.
        prediction: what the network answers: the noise ("epsilon"), sqrt(a) e - sqrt(1 - a) x ("v_prediction",
            https://arxiv.org/abs/2202.00512) or the data ("sample"); None = as the scheduler says.
        min_snr: bound of the signal-to-noise ratio in the loss weight (https://arxiv.org/abs/2303.09556, gamma = 5);
            None = all times weigh the same.
    """

    def __init__(self, scheduler: Any, prediction: Prediction | None = None, min_snr: float | None = None) -> None:
        from diffusers import DDPMScheduler

        # diffusers notes which values were defaults and forgets them in `from_config`, also where they are changed here
        config = {key: value for key, value in scheduler.config.items() if key != "_use_default_values"}
        config["prediction_type"] = self.prediction = prediction or config["prediction_type"]
        self.min_snr, self._config, self._class = min_snr, config, type(scheduler)
        with torch.device("cpu"):  # schedules are numbers, also where weights are shapes alone
            self._schedule: Any = DDPMScheduler.from_config(config)

    def __call__(self, data: Float[Tensor, "K *shape"], streams: Streams) -> Noised:
        """Noise first, then the time: one pair per item."""
        noise = streams.normal(*data.shape[1:]).to(data.dtype)
        time = (streams.uniform() * self._schedule.config.num_train_timesteps).long()
        sample = self._schedule.add_noise(data, noise, time)
        return Noised(sample=sample, time=time, target=self._target(data, noise, time), weight=self.weight(time))

    def scheduler(self) -> Any:
        """A fresh one of the class that was given, which knows what the network predicts."""
        with torch.device("cpu"):
            return self._class.from_config(self._config)

    def time(self, timestep: Tensor) -> Tensor:
        """As it is."""
        return timestep

    def answer(self, output: Tensor, sample: Tensor, timestep: Tensor) -> Tensor:
        """As it is: the scheduler converts."""
        return output

    def weight(self, time: Int[Tensor, "K"]) -> Float[Tensor, "K"]:
        """min(snr, bound) / snr for the noise, / (snr + 1) for v, and as it is for the data."""
        if self.min_snr is None:
            return torch.ones(len(time), device=time.device)
        share = self._schedule.alphas_cumprod.to(time.device)[time]
        snr = (share / (1 - share)).clamp(min=torch.finfo(torch.float32).tiny)
        below = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}
        return snr.clamp(max=self.min_snr) / below[self.prediction]

    def _target(self, data: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        if self.prediction == "v_prediction":
            return self._schedule.get_velocity(data, noise, time)
        return noise if self.prediction == "epsilon" else data
