"""DeepAR of neuralforecast, forecast by sample paths as in its paper."""

from __future__ import annotations

from typing import Any

import torch
from neuralforecast.models import DeepAR
from torch import Tensor


class SampledDeepAR(DeepAR):
    """Feed drawn values back, not means (Salinas et al. 2020, section 3).

    neuralforecast 3 feeds the mean of each step back into the network, so that its bands are those
    of one step ahead at every step. Training, windows and scaling stay the library's.
    """

    def _predict_step_recurrent_batch(
        self,
        insample_y: Tensor,
        insample_mask: Tensor,
        futr_exog: Tensor | None,
        hist_exog: Tensor | None,
        stat_exog: Tensor | None,
        y_idx: int,
    ) -> Tensor:
        n_paths, window = self.n_samples, self.input_size
        loc, scale = self._get_loc_scale(y_idx)
        self.rnn_state, self.maintain_state, self.h = None, True, 1
        inputs: dict[str, Any] = {
            "insample_y": insample_y[:, :window],
            "futr_exog": None if futr_exog is None else futr_exog[:, :window],
            "hist_exog": None,
            "stat_exog": None,
        }
        paths = []
        for step in range(self.predict_horizon):
            output = self.loss.domain_map(self(inputs))
            if step == 0:  # from here on every window has its paths
                output = tuple(part.repeat_interleave(n_paths, dim=0) for part in output)
                loc, scale = (part.repeat_interleave(n_paths, dim=0) for part in (loc, scale))
                self.rnn_state = tuple(
                    part.repeat_interleave(n_paths, dim=1) for part in self.rnn_state
                )
            distribution = self.loss.get_distribution(
                distr_args=self.loss.scale_decouple(output=output, loc=loc, scale=scale)
            )
            draw = distribution.sample()  # (windows * paths, 1, 1)
            paths.append(draw)
            inputs["insample_y"] = self.scaler.scaler(draw, loc, scale)
            if futr_exog is not None and step + 1 < self.predict_horizon:
                row = futr_exog[:, window + step].unsqueeze(1)
                inputs["futr_exog"] = row.repeat_interleave(n_paths, dim=0)
        self.rnn_state, self.maintain_state, self.h = None, False, self.horizon_backup
        drawn = torch.cat(paths, dim=1).reshape(-1, n_paths, self.predict_horizon)
        quantiles = torch.quantile(drawn, self.loss.quantiles, dim=1).permute(1, 2, 0)
        return torch.cat([drawn.mean(dim=1).unsqueeze(-1), quantiles], dim=-1)
