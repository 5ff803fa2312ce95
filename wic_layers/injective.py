"""Densities on manifolds under their short name: see :mod:`wic_layers.layer.injective`."""

from wic_layers.layer.injective import (
    JointLoss,
    decoder_log_volume,
    estimate_log_volume,
    joint_loss,
    latent_loss,
    log_prob_on_manifold,
    reconstruction_loss,
)

__all__ = [
    "JointLoss",
    "decoder_log_volume",
    "estimate_log_volume",
    "joint_loss",
    "latent_loss",
    "log_prob_on_manifold",
    "reconstruction_loss",
]
