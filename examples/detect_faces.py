"""Find the faces in a photograph with pretrained networks, those of MTCNN, on any backend.

python examples/detect_faces.py faces.jpg
python examples/detect_faces.py faces.jpg --image photograph.jpg --backend torch
"""

from typing import Any, NamedTuple

import array_api_compat
import numpy as np
from drawing import arguments, run
from mtcnn import networks
from plots import Figure

import xpconv


class Found(NamedTuple):
    """Boxes (N, 4): left, top, right, bottom; scores (N,); shifts of the sides (N, 4); O-Net's landmarks (N, 5, 2)."""

    boxes: Any
    scores: Any
    shifts: Any
    landmarks: Any = None

    def only(self, which):
        return Found(*(None if part is None else part[which] for part in self))

    def moved(self, more=1):
        """Move every side of every box by its shift, which counts in widths and heights of the box and some `more`."""
        sides = np.tile(self.boxes[:, 2:] - self.boxes[:, :2] + more, 2)
        return self._replace(boxes=self.boxes + self.shifts * sides)


def detect(nets, pixels, smallest=20, thresholds=(0.6, 0.7, 0.7)):
    """Return what P-Net, R-Net and O-Net find in pixels from 0 to 255, (1, 3, H, W), on any backend.

    `smallest` is the side of the smallest face in pixels; each net passes on what scores above its threshold.
    """
    pnet, rnet, onet = nets
    proposed = propose(pnet, pixels, smallest, thresholds[0])
    refined = look(rnet, pixels, squares(proposed.boxes), 24, thresholds[1])
    refined = refined.only(apart(refined, 0.7)).moved()
    faces = look(onet, pixels, squares(refined.boxes), 48, thresholds[2]).moved()
    return proposed, refined, faces.only(apart(faces, 0.7, of_smaller=True))


def propose(net, pixels, smallest, threshold):
    """Let P-Net, which is a convolution as a whole, look at every window of 12x12 pixels at every size of the image."""
    height, width = pixels.shape[2:]
    scale, found = 12 / smallest, []
    while min(height, width) * scale >= 12:
        small = xpconv.adaptive_avg_pool(pixels, (int(height * scale + 1), int(width * scale + 1)))
        chances, shifts = (xpconv.to_numpy(answer)[0] for answer in net(small))
        rows, columns = (chances[1] >= threshold).nonzero()
        corners = 2 * np.stack([columns, rows], axis=1).astype(shifts.dtype)  # P-Net's one pooling halves the image
        boxes = np.floor(np.hstack([corners + 1, corners + 12]) / scale)
        here = Found(boxes, chances[1, rows, columns], shifts[:, rows, columns].T)
        found.append(here.only(apart(here, 0.5)))
        scale *= 0.709  # half the area
    if not found:
        raise ValueError(f"the image has {width}x{height} pixels; give one of at least {smallest}x{smallest}")
    together = Found(*(np.concatenate(parts) for parts in list(zip(*found, strict=True))[:3]))
    return together.only(apart(together, 0.7)).moved(more=0)


def look(net, pixels, boxes, size, threshold):
    """Let R-Net or O-Net look closer at what is in the boxes."""
    height, width = pixels.shape[2:]
    corners = np.clip(boxes.astype(int), [1, 1, 0, 0], [width, height] * 2).tolist()
    inside = [left <= right and top <= bottom for left, top, right, bottom in corners]
    crops = [
        xpconv.adaptive_avg_pool(pixels[:, :, top - 1 : bottom, left - 1 : right], size)
        for (left, top, right, bottom), within in zip(corners, inside, strict=True)
        if within
    ]
    if not crops:
        return Found(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 4)), np.zeros((0, 5, 2)))
    xp = array_api_compat.array_namespace(pixels)
    chances, shifts, *rest = (xpconv.to_numpy(answer) for answer in net(xp.concat(crops)))
    boxes = boxes[inside]
    landmarks = None
    if rest:  # five shares of the box across, and five down
        shares = rest[0].reshape(-1, 2, 5).transpose(0, 2, 1)
        landmarks = boxes[:, None, :2] - 1 + shares * (boxes[:, None, 2:] - boxes[:, None, :2] + 1)
    return Found(boxes, chances[:, 1], shifts, landmarks).only(chances[:, 1] > threshold)


def squares(boxes):
    """Grow boxes about their middle until they are as wide as high."""
    sides = boxes[:, 2:] - boxes[:, :2]
    side = sides.max(axis=1, keepdims=True)
    corners = boxes[:, :2] + sides / 2 - side / 2
    return np.hstack([corners, corners + side])


def apart(found, share, of_smaller=False):
    """Return which boxes stay when each suppresses those of lower score that it overlaps by more than this share.

    The share is that of the intersection in the union, or in the smaller box. Also known as non-maximum suppression.
    """
    boxes, left, stay = found.boxes, np.argsort(-found.scores, kind="stable"), []
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    while left.size:
        best, left = left[0], left[1:]
        stay.append(best)
        low, high = np.maximum(boxes[best, :2], boxes[left, :2]), np.minimum(boxes[best, 2:], boxes[left, 2:])
        both = np.prod(np.maximum(high - low, 0), axis=1)
        whole = np.minimum(areas[best], areas[left]) if of_smaller else areas[best] + areas[left] - both
        left = left[both <= share * whole]
    return np.array(stay, dtype=int)


def draw(image, stages):
    figure = Figure(figsize=(10, 4.3), layout="constrained")
    for axes, name, found in zip(figure.subplots(1, 3), ("P-Net", "R-Net", "O-Net"), stages, strict=True):
        axes.imshow(image)
        axes.set_title(f"{name} leaves {len(found.boxes)}")
        axes.set_axis_off()
        last = found.landmarks is not None
        for (left, top, right, bottom), score in zip(found.boxes, found.scores, strict=True):
            xs, ys = [left, right, right, left, left], [top, top, bottom, bottom, top]
            axes.plot(xs, ys, color="#f0e442", linewidth=2 if last else 0.7, alpha=1 if last else 0.6)
            if last:
                axes.text(left, top - 8, f"{score:.2%}", color="#f0e442", backgroundcolor="black")
        if last:
            axes.scatter(*found.landmarks.reshape(-1, 2).T, s=14, color="#56b4e9", edgecolor="black", linewidth=0.5)
        axes.set(xlim=(0, image.shape[1]), ylim=(image.shape[0], 0))
    return figure


def main():
    parser = arguments(__doc__, weights=False)
    parser.add_argument("--image", metavar="FILE", help="Admiral Grace Hopper (US Navy) if not given")
    parser.add_argument("--backend", default="numpy", help="numpy, cupy, torch, jax, array-api-strict")
    parser.add_argument("--smallest", type=int, default=40, help="side of the smallest face, in pixels")
    args = parser.parse_args()
    if args.smallest < 1:
        raise ValueError(f"smallest is {args.smallest}; give at least 1 pixel")
    backend = xpconv.backend(args.backend)
    image = photograph(args.image)
    pixels = backend.asarray(image.transpose(2, 0, 1)[None], "float32")
    stages = detect(networks(backend), pixels, args.smallest)
    draw(image, stages).savefig(args.picture, dpi=75)
    for box, score in zip(stages[-1].boxes, stages[-1].scores, strict=True):
        print(f"a face at {', '.join(f'{side:.0f}' for side in box)} with a chance of {score:.2%}")


def photograph(file=None):
    """Return a photograph, (H, W, 3) from 0 to 255; without a file one in the public domain that matplotlib ships."""
    from matplotlib.cbook import get_sample_data
    from PIL import Image

    return np.asarray(Image.open(file or get_sample_data("grace_hopper.jpg")).convert("RGB"))


if __name__ == "__main__":
    run(main)
