"""Experiment tracking that ends in a claim: multi-seed comparisons of neural nets, logged to MLflow."""

__version__ = "0.1.0"
