"""Draw what every layer of a trained network makes of one image.

python examples/train_cnn.py --save digits.safetensors
python examples/draw_activations.py digits.safetensors activations.png --digit 3
"""

from drawing import arguments, mosaic, run, trained
from plots import Figure

import xpconv


def main():
    parser = arguments(__doc__)
    parser.add_argument("--digit", type=int, choices=range(10), default=3, help="draw the first image of this digit")
    args = parser.parse_args()
    network, test = trained(args.weights)
    x = test.images[test.labels == args.digit][:1]

    figure = Figure(figsize=(10, 3.5), layout="constrained")
    figure.suptitle(f"A {args.digit} on its way through the network")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 3))
    image, chances = left.subplots(2, 1)
    image.imshow(x[0, 0], cmap="gray_r")
    image.set(title="the image", xticks=[], yticks=[])

    parts = dict(zip(("Conv1", "Relu1", "Pool1"), right.subplots(1, 3), strict=True))
    for name, layer in network.layers.items():
        x = layer.forward(x, train_flg=False)
        if name in parts:
            limit = abs(x).max()
            channels = mosaic(x[0], columns=6)
            drawn = parts[name].imshow(channels, cmap="RdBu_r", vmin=-limit, vmax=limit)
            parts[name].set_title(f"{name}: {x.shape[1]} channels of {x.shape[2]}x{x.shape[3]}", fontsize=10)
            parts[name].set_axis_off()
            right.colorbar(drawn, ax=parts[name], location="bottom", shrink=0.8)

    bars = chances.bar(range(10), xpconv.softmax(x)[0], color="0.6")
    bars[args.digit].set_color("#d55e00")
    chances.set(title="the answer", xlabel="digit", ylabel="probability", xticks=range(10), ylim=(0, 1))
    figure.savefig(args.picture, dpi=100)


if __name__ == "__main__":
    run(main)
