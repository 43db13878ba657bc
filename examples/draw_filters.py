"""Draw the filters that the first layer of a trained network has learned.

python examples/train_cnn.py --save digits.safetensors
python examples/draw_filters.py digits.safetensors filters.png
"""

from drawing import arguments, mosaic, run, trained
from plots import Figure


def main():
    args = arguments(__doc__).parse_args()
    network, _ = trained(args.weights)
    filters = network.params["W1"][:, 0]  # (O, KH, KW), of the one channel
    limit = abs(filters).max()

    figure = Figure(figsize=(8, 2.7), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(mosaic(filters, columns=10), cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.set_title(f"What the first layer looks for: its {len(filters)} filters of 3x3 weights")
    axes.set_axis_off()
    figure.colorbar(image, label="wants ink (red) or none (blue)")
    figure.savefig(args.picture, dpi=100)


if __name__ == "__main__":
    run(main)
