"""Data: images to learn from, where batches come from, in memory or larger than it, and how they are varied."""

from xpconv.data.augmentation import crop, cutout, flip, shift
from xpconv.data.datasets import Dataset, batches, digits, load, mnist
from xpconv.data.files import MappedArray, read_idx
from xpconv.data.sources import Augmented, InMemory, Source, placed
from xpconv.data.streaming import Indexed, Iterated

__all__ = [
    "Augmented",
    "Dataset",
    "InMemory",
    "Indexed",
    "Iterated",
    "MappedArray",
    "Source",
    "batches",
    "crop",
    "cutout",
    "digits",
    "flip",
    "load",
    "mnist",
    "placed",
    "read_idx",
    "shift",
]
