"""Nets, their initial weights and their optimizers: Keras, and nothing of MLflow or Hydra."""
