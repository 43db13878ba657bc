"""What the scripts in this folder share: arguments, a trained network, a mosaic, and errors in one line."""

import argparse
import sys
from pathlib import Path

import numpy as np

import xpconv
from xpconv.data import digits


def arguments(description, weights=True):
    """A parser for the files that a script reads and writes."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    if weights:
        parser.add_argument("weights", help="what train_cnn.py --save has written, trained on the digits")
    parser.add_argument("picture", help="the file to draw to, in the format of its suffix")
    return parser


def trained(file):
    """The network that train_cnn.py trains by default, with these weights, and the images that it has not seen."""
    network = xpconv.SimpleConvNet((1, 8, 8), {"filter_size": 3, "pad": 1})
    network.load(file)
    return network, digits()[1]


def mosaic(pictures, columns):
    """Lay pictures, shape (N, H, W), side by side into one, with gaps that no colour fills."""
    count, height, width = pictures.shape
    lines = -(-count // columns)
    tiles = np.full((lines * columns, height + 1, width + 1), np.nan)
    tiles[:count, 1:, 1:] = pictures
    joined = tiles.reshape(lines, columns, height + 1, width + 1).transpose(0, 2, 1, 3)
    return joined.reshape(lines * (height + 1), columns * (width + 1))[1:, 1:]


def run(main):
    """Run a script; what is wrong with its input is one line and exit status 2."""
    try:
        main()
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2)
