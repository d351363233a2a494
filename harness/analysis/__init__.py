"""Statistics, bias-variance and theory: numbers in, numbers out; no TensorFlow, MLflow or Hydra."""
