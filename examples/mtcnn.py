"""The networks of MTCNN, which find faces together, each more particular than the one before.

Zhang, Zhang, Li, Qiao, "Joint face detection and alignment using multitask cascaded convolutional networks", 2016. The
weights are those that the package facenet-pytorch ships (MIT).
"""

import importlib.util
import tempfile
from pathlib import Path

import numpy as np
from torch_to_safetensors import convert

import xpconv


class Net:
    """Layers, and above them heads that each say something else of what these have seen."""

    def __init__(self, layers, *heads):
        self.trunk, self.heads = xpconv.Network(layers), [xpconv.Network(head) for head in heads]

    def __call__(self, pixels):
        """Return what the heads say of pixels from 0 to 255, (N, 3, H, W): chances, boxes and perhaps landmarks."""
        seen = self.trunk.predict((pixels - 127.5) / 128)
        return [head.predict(seen) for head in self.heads]

    def load(self, file):
        """Read all weights from a state dict, in which the layers have the names that they have here."""
        self.trunk.load(file, names_in_torch(self.trunk, permuted).get)
        for head in self.heads:
            head.load(file, names_in_torch(head, np.transpose).get)


def names_in_torch(network, linear):
    """What each array of a state dict is in a network with layers of the same names; `linear` lays out a Linear's."""
    layers = {id(layer): name for name, layer in network.layers.items()}
    names = {}
    for own in network.params:
        layer, attribute = network.params.place(own)
        name = f"{layers[id(layer)]}.{'bias' if attribute == 'b' else 'weight'}"
        names[name] = (own, linear) if isinstance(layer, xpconv.Affine) and attribute == "W" else own
    return names


def permuted(weight):
    """Lay out a Linear's weight, (M, W*H*C), whose 3x3 features were permuted before, as Affine has it, (C*H*W, M)."""
    return weight.reshape(len(weight), 3, 3, -1).transpose(3, 2, 1, 0).reshape(-1, len(weight))


def networks(backend, dtype="float32"):
    """Return P-Net, R-Net and O-Net with their weights."""

    def zeros(*shape):
        return backend.asarray(np.zeros(shape), dtype)

    def conv(inputs, outputs, kernel):
        return xpconv.Convolution(zeros(outputs, inputs, kernel, kernel), zeros(outputs))

    def affine(inputs, outputs):
        return xpconv.Affine(zeros(inputs, outputs), zeros(outputs))

    def prelu(channels):
        return xpconv.PRelu(zeros(channels))

    def pool(kernel):
        return xpconv.MaxPooling(kernel, stride=2, ceil_mode=True)

    pnet = {"conv1": conv(3, 10, 3), "prelu1": prelu(10), "pool1": pool(2)}
    pnet |= {"conv2": conv(10, 16, 3), "prelu2": prelu(16)}
    pnet |= {"conv3": conv(16, 32, 3), "prelu3": prelu(32)}
    rnet = {"conv1": conv(3, 28, 3), "prelu1": prelu(28), "pool1": pool(3)}
    rnet |= {"conv2": conv(28, 48, 3), "prelu2": prelu(48), "pool2": pool(3)}
    rnet |= {"conv3": conv(48, 64, 2), "prelu3": prelu(64)}
    rnet |= {"dense4": affine(576, 128), "prelu4": prelu(128)}
    onet = {"conv1": conv(3, 32, 3), "prelu1": prelu(32), "pool1": pool(3)}
    onet |= {"conv2": conv(32, 64, 3), "prelu2": prelu(64), "pool2": pool(3)}
    onet |= {"conv3": conv(64, 64, 3), "prelu3": prelu(64), "pool3": pool(2)}
    onet |= {"conv4": conv(64, 128, 2), "prelu4": prelu(128)}
    onet |= {"dense5": affine(1152, 256), "prelu5": prelu(256)}
    softmax = xpconv.Softmax
    nets = {
        "pnet": Net(pnet, {"conv4_1": conv(32, 2, 1), "softmax": softmax()}, {"conv4_2": conv(32, 4, 1)}),
        "rnet": Net(rnet, {"dense5_1": affine(128, 2), "softmax": softmax()}, {"dense5_2": affine(128, 4)}),
        "onet": Net(
            onet,
            {"dense6_1": affine(256, 2), "softmax": softmax()},
            {"dense6_2": affine(256, 4)},
            {"dense6_3": affine(256, 10)},
        ),
    }
    with tempfile.TemporaryDirectory() as directory:
        for name, net in nets.items():
            file = Path(directory, f"{name}.safetensors")
            convert(package() / "data" / f"{name}.pt", file)
            net.load(file)
    return nets.values()


def package():
    """Return where facenet-pytorch lies. It need not be imported, which would ask for what it was made with."""
    spec = importlib.util.find_spec("facenet_pytorch")
    if spec is None:
        raise ImportError("the weights come with facenet-pytorch: pip install --no-deps facenet-pytorch")
    return Path(spec.origin).parent
