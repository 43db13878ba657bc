"""Networks of layers, what their parameters begin as, and the files that these are kept in."""

from xpconv.networks.convnets import DeepConvNet, SimpleConvNet
from xpconv.networks.network import Network

__all__ = ["DeepConvNet", "Network", "SimpleConvNet"]
