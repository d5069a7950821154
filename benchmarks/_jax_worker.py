"""Times training steps of the public JAX implementation; run by `jax_step.py` in its own Python.

Reads `B T F D steps` from standard input, one line for each turn, and answers with milliseconds a
step; the first turn of a shape compiles and answers with that time as well. With the argument
`sequential`, message passing is that implementation's own scan over the steps of a series, which
its models do not use, instead of its associative scan.
"""

from __future__ import annotations

import sys
import time
from functools import partial

import flax.linen as nn
import jax
import numpy as np
import optax

jax.config.update("jax_enable_x64", True)

# Modules of the checkout, whose folder `svae` is on the path.
from inference import MP_Inference  # noqa: E402
from models.SVAE_LDS import SVAE_LDS  # noqa: E402
from networks.decoders import SigmaDecoder  # noqa: E402
from networks.dense import DenseNet  # noqa: E402
from networks.encoders import SigmaEncoder  # noqa: E402
from networks.layers import LayerNorm  # noqa: E402
from tensorflow_probability.substrates.jax import distributions as tfd  # noqa: E402
from train_utils import create_dual_train_state, train_step  # noqa: E402


class Stepper:
    """A model of one shape and its training state."""

    def __init__(self, n_series: int, n_steps: int, n_features: int, latent_dim: int) -> None:
        def network(width: int) -> object:
            return partial(
                DenseNet, resnet=True, stage_sizes=[1] * 4, hidden_sizes=[width] * 4,
                activation=nn.gelu, norm_cls=LayerNorm,
            )  # fmt: skip

        builder = partial(
            SVAE_LDS,
            latent_D=latent_dim,
            input_D=n_features,
            encoder_cls=partial(SigmaEncoder, network_cls=network(128)),
            decoder_cls=partial(SigmaDecoder, network_cls=network(256), likelihood=tfd.Normal),
        )
        x = np.random.default_rng(0).normal(size=(n_series, n_steps, n_features))
        self.x = jax.numpy.asarray(x, dtype="float32")
        rate = optax.constant_schedule(1e-4)
        _, self.state = create_dual_train_state(
            jax.random.PRNGKey(0), rate, rate, builder, self.x.shape,
            learning_alg_net="adam", learning_alg_pgm="sgd",
        )  # fmt: skip

    def run(self, steps: int) -> float:
        """Milliseconds a step."""
        start = time.perf_counter()
        for _ in range(steps):
            self.state, metrics = train_step(self.state, self.x, N_data=10)
        loss = float(metrics["loss"])
        if not np.isfinite(loss):
            sys.exit("the loss of the JAX implementation is not finite")
        return 1000 * (time.perf_counter() - start) / steps


def main() -> None:
    if sys.argv[1:] == ["sequential"]:  # same arguments, same results
        MP_Inference.lds_inference = MP_Inference.lds_inference_sequential
    steppers: dict[tuple[int, ...], Stepper] = {}
    for line in sys.stdin:
        *shape, steps = map(int, line.split())
        key, compile_ms = tuple(shape), 0.0
        if key not in steppers:
            steppers[key] = Stepper(*shape)
            compile_ms = steppers[key].run(1)
        print(f"{steppers[key].run(steps)} {compile_ms}", flush=True)


if __name__ == "__main__":
    main()
