"""Draw saliency maps: how much each pixel moves the score of the image's class, which is the gradient by the image.

python examples/train_cnn.py --save digits.safetensors
python examples/draw_saliency.py digits.safetensors saliency.png

Simonyan, Vedaldi, Zisserman, "Deep inside convolutional networks", 2014.
"""

import numpy as np
from drawing import arguments, run, trained
from plots import Figure


def saliency(network, images, labels):
    """The gradient of each image's score for its label, by the image."""
    scores = network.forward(images, train_flg=False)
    return network.backward(np.eye(scores.shape[1], dtype=scores.dtype)[labels])


def main():
    args = arguments(__doc__).parse_args()
    network, test = trained(args.weights)
    first = [int((test.labels == digit).argmax()) for digit in range(10)]
    images, labels = test.images[first], test.labels[first]
    gradients = saliency(network, images, labels)
    limit = abs(gradients).max()

    figure = Figure(figsize=(10, 2.5), layout="constrained")
    figure.suptitle("Which pixels speak for the digit (red: more ink, a higher score) and which against it (blue)")
    rows = figure.subplots(2, 10)
    for image, gradient, label, (above, below) in zip(images, gradients, labels, rows.T, strict=True):
        above.imshow(image[0], cmap="gray_r", vmin=0, vmax=1)
        above.set_title(f"a {label}", fontsize=10)
        drawn = below.imshow(gradient[0], cmap="RdBu_r", vmin=-limit, vmax=limit)
        below.contour(image[0], levels=[0.5], colors="black", linewidths=0.8)
    for axes in rows.flat:
        axes.set(xticks=[], yticks=[])
    figure.colorbar(drawn, ax=rows, label="d score / d ink")
    figure.savefig(args.picture, dpi=100)


if __name__ == "__main__":
    run(main)
