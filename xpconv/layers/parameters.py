"""The arrays that layers own, by the book's names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, MutableMapping, Sequence

from xpconv.arrays.arguments import namespace, one_dtype, shaped
from xpconv.arrays.libraries import Array
from xpconv.layers.layer import Layer


class LayerArrays(MutableMapping[str, Array]):
    """A live view of the arrays that layers own, by name: reading and writing go to the layer.

    The k-th layer that can have a `W` calls it ``W<k>``, and so on for every attribute. One that is None, as the bias
    of a layer without one, has its number and is not in the mapping.

    Parameters
    ----------
    layers : iterable of Layer
    kinds : sequence of str
        Which of the layers' arrays: "parameters", "buffers" or both.
    """

    def __init__(self, layers: Iterable[Layer], kinds: Sequence[str] = ("parameters",)) -> None:
        self._places: dict[str, tuple[Layer, str]] = {}
        seen: Counter[str] = Counter()
        for layer in layers:
            for attribute in (name for kind in kinds for name in getattr(layer, kind)):
                seen[attribute] += 1
                self._places[f"{attribute}{seen[attribute]}"] = (layer, attribute)

    def place(self, name: str) -> tuple[Layer, str]:
        """Return the layer and the attribute that this name stands for.

        Raises
        ------
        KeyError
            When there is no array of this name.
        """
        layer, attribute = self._places.get(name, (None, ""))
        if layer is None or getattr(layer, attribute) is None:
            raise KeyError(f"there is no {name!r}; give one of {', '.join(self)}")
        return layer, attribute

    def __getitem__(self, name: str) -> Array:
        layer, attribute = self.place(name)
        return getattr(layer, attribute)

    def __setitem__(self, name: str, array: Array) -> None:
        layer, attribute = self.place(name)
        if array is None:
            raise TypeError(f"the new value of {name} is None; give an array")
        pair = {name: getattr(layer, attribute), "its new value": array}
        one_dtype(namespace(**pair), "real floating", **pair)
        shaped(f"the new value of {name}", array, tuple(pair[name].shape), "the shape that it has now")
        setattr(layer, attribute, array)

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{name!r} belongs to its layer and cannot be taken away; give it another value")

    def __iter__(self) -> Iterator[str]:
        return (name for name, (layer, attribute) in self._places.items() if getattr(layer, attribute) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<{', '.join(f'{name} {tuple(array.shape)}' for name, array in self.items())}>"
