"""The training of one run: TensorFlow and Keras, and nothing of MLflow or Hydra."""
