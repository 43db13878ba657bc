"""Draw im2col itself: which pixel of an image lands in which cells of the matrix.

python examples/draw_im2col.py im2col.png
python examples/draw_im2col.py im2col.png --channels 1 --size 5 --stride 2 --pad 1
"""

import numpy as np
from drawing import arguments, run
from matplotlib import colormaps
from matplotlib.patches import Rectangle
from plots import Figure

import xpconv

CHANNELS = [colormaps[name] for name in ("Blues", "YlOrBr", "Greys")]
WINDOWS = ("#d55e00", "#000000", "#009e73", "#cc79a7")  # outlines that every eye can tell apart


def main():
    parser = arguments(__doc__, weights=False)
    for name, default in (("channels", 2), ("size", 4), ("kernel", 3), ("stride", 1), ("pad", 0)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{default} if not given")
    args = parser.parse_args()
    if not (1 <= args.channels <= 3 and args.size >= 1):
        raise ValueError(f"channels is {args.channels} and size {args.size}; give 1 to 3 channels and at least 1 pixel")
    shape = (1, args.channels, args.size, args.size)
    image = np.arange(1, 1 + np.prod(shape)).reshape(shape)  # every pixel has its number, and padding is 0
    matrix = xpconv.im2col(image, args.kernel, args.kernel, args.stride, args.pad)
    figure = draw(xpconv.pad(image, args.pad)[0], matrix, args)
    figure.savefig(args.picture, dpi=85)


def draw(planes, matrix, args):
    """Draw the padded image, (C, H, W), on the left and the matrix, (OH*OW, C*FH*FW), on the right."""
    side, taps = planes.shape[1], args.kernel**2
    outputs = (side - args.kernel) // args.stride + 1
    left = side + 4.5  # where the matrix begins
    across, down = left + max(matrix.shape[1], 15) + 0.5, max(len(planes) * (side + 1.2), 1.15 * len(matrix) + 1) + 3
    figure = Figure(figsize=(0.36 * across, 0.36 * down))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-0.5, across), ylim=(down - 3, -3))
    axes.set_axis_off()

    def cells(numbers, x, y):
        for (row, column), number in np.ndenumerate(numbers):
            channel, place = divmod(number - 1, args.size**2)
            shade = 0.1 + 0.7 * place / args.size**2
            colour, edge = (CHANNELS[channel](shade), "white") if number else ("white", "0.8")
            axes.add_patch(Rectangle((x + column, y + row), 1, 1, facecolor=colour, edgecolor=edge))
            ink = "0.6" if number == 0 else "white" if shade > 0.5 else "black"
            axes.text(x + column + 0.5, y + row + 0.53, number, ha="center", va="center", fontsize=9, color=ink)

    def outline(x, y, k):
        gap = 0.06 * k + 0.04  # so that outlines of windows that overlap lie beside each other
        inner = args.kernel - 2 * gap
        axes.add_patch(
            Rectangle((x + gap, y + gap), inner, inner, fill=False, linewidth=2, edgecolor=WINDOWS[k], zorder=3)
        )

    axes.text(0, -2.3, f"im2col: {args.kernel}x{args.kernel} windows become rows", fontsize=12, fontweight="bold")
    axes.text(
        0, -1.5, f"stride {args.stride}, pad {args.pad}; colours follow the pixels, outlines the windows", fontsize=9
    )
    for c, plane in enumerate(planes):
        y = c * (side + 1.2)
        axes.text(0, y - 0.25, f"image, channel {c}", fontsize=9)
        cells(plane, 0, y)
        for k in range(min(len(matrix), len(WINDOWS))):
            row, column = divmod(k, outputs)
            outline(column * args.stride, y + row * args.stride, k)
        axes.text(left + taps * (c + 0.5), -0.25, f"taps of channel {c}", fontsize=9, ha="center")
    for k, numbers in enumerate(matrix):
        ink = WINDOWS[k] if k < len(WINDOWS) else "0.3"
        y = 1.15 * k
        axes.text(left - 0.25, y + 0.53, f"window {divmod(k, outputs)}", fontsize=9, ha="right", va="center", color=ink)
        cells(numbers[None], left, y)
        axes.add_patch(Rectangle((left, y), len(numbers), 1, fill=False, linewidth=2, edgecolor=ink))
    note = f"matrix, {len(matrix)} windows x {matrix.shape[1]} taps; times the filters it is the convolution"
    axes.text(left, 1.15 * len(matrix) + 0.5, note, fontsize=9)
    return figure


if __name__ == "__main__":
    run(main)
