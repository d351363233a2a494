"""Builders of nets: `(input_shape, classes, *, …) -> keras.Model` from preprocessed examples to logits.

Every layer with weights is linear and named; its activation is a layer of its own, `<layer>_<activation>`, so that
probes see pre-activations and activations alike. The output layer is called `logits`. Layers of one kind are counted
through the net (`conv1`, `conv2`, …), so that the same layer has the same name in every architecture. Keras is imported
when a net is built, so that a config can be checked against a builder's signature without TensorFlow.
"""

from harness.models.architectures.alexnet import alexnet
from harness.models.architectures.chain import ShapeError, build
from harness.models.architectures.cnt import cnt
from harness.models.architectures.convnet import convnet
from harness.models.architectures.dense import mlp, softmax
from harness.models.architectures.lenet5 import lenet5
from harness.models.architectures.resnet import resnet
from harness.models.architectures.vgg import vgg

__all__ = ["ShapeError", "alexnet", "build", "cnt", "convnet", "lenet5", "mlp", "resnet", "softmax", "vgg"]
