"""The fixtures of `servers`, and TensorFlow set up before the first test takes an operation."""

from servers import postgres, server

__all__ = ["postgres", "server"]
