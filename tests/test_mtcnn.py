"""The pretrained networks that find faces, against the package that they come from."""

import importlib
import pathlib
import sys
import types

import numpy as np
import pytest

import xpconv
from xpconv.testing import assert_close

pytest.importorskip("matplotlib")
pytest.importorskip("safetensors")
torch = pytest.importorskip("torch")
if importlib.util.find_spec("facenet_pytorch") is None:
    pytest.skip("facenet-pytorch is not installed", allow_module_level=True)

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("detect_faces")


def batched_nms(boxes, scores, groups, threshold):
    """Non-maximum suppression of torchvision, whose wheels fit only some of PyTorch's, in plain loops."""
    stay = []
    for i in sorted(range(len(boxes)), key=lambda i: -float(scores[i])):
        for j in stay:
            sides = [min(boxes[i, k + 2], boxes[j, k + 2]) - max(boxes[i, k], boxes[j, k]) for k in (0, 1)]
            both = max(0, sides[0]) * max(0, sides[1])
            areas = [(boxes[k, 2] - boxes[k, 0]) * (boxes[k, 3] - boxes[k, 1]) for k in (i, j)]
            if groups[i] == groups[j] and both / (areas[0] + areas[1] - both) > threshold:
                break
        else:
            stay.append(i)
    return torch.tensor(stay, dtype=torch.int64)


@pytest.fixture
def original(monkeypatch):
    """The original's module, without the package around it and what that imports besides."""
    spec = importlib.util.find_spec("facenet_pytorch")
    package, vision = types.ModuleType("facenet_pytorch"), types.ModuleType("torchvision")
    package.__path__, package.__spec__ = spec.submodule_search_locations, spec
    transforms, boxes = types.ModuleType("torchvision.transforms"), types.ModuleType("torchvision.ops.boxes")
    transforms.functional, boxes.batched_nms = None, batched_nms
    for module in (package, vision, transforms, types.ModuleType("torchvision.ops"), boxes):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    yield importlib.import_module("facenet_pytorch.models.mtcnn")
    for name in [name for name in sys.modules if name.startswith("facenet_pytorch.")]:
        del sys.modules[name]


def assert_networks_agree(example, original, backend, dtype, tolerance):
    image = example.photograph().transpose(2, 0, 1)[None].astype(dtype)
    corners = [(down, across) for down in range(30, 400, 40) for across in range(100, 400, 40)]
    for net, name, size in zip(example.networks(backend, dtype), ("PNet", "RNet", "ONet"), (None, 24, 48), strict=True):
        crops = [image[:, :, down : down + size, across : across + size] for down, across in corners] if size else []
        pixels = np.concatenate(crops or [image[:, :, ::3, ::3]])
        reference = getattr(original, name)().to(getattr(torch, dtype))
        with torch.no_grad():
            boxes, *landmarks, chances = reference((torch.asarray(pixels) - 127.5) * 0.0078125)
        for answer, part in zip(net(backend.asarray(pixels)), [chances, boxes, *landmarks], strict=True):
            like = backend.asarray(np.zeros(1, dtype))
            assert_close(answer, part.numpy(), like=like, rtol=tolerance, atol=tolerance)


def test_every_network_agrees_with_the_original(backend, example, original):
    assert_networks_agree(example, original, backend, "float32", 1e-5)


def test_every_network_agrees_with_the_original_in_double_precision(example, original):
    assert_networks_agree(example, original, xpconv.backend(), "float64", 1e-12)


@pytest.mark.parametrize("flag", ["numpy", "torch"])  # JAX would compile for every size of the image
def test_the_cascade_finds_what_the_original_finds(flag, example, original):
    backend, image = xpconv.backend(flag), example.photograph()
    pixels = backend.asarray(image.transpose(2, 0, 1)[None], "float32")
    *_, faces = example.detect(example.networks(backend), pixels, smallest=40)
    boxes, chances, landmarks = original.MTCNN(min_face_size=40).detect(image, landmarks=True)
    assert len(boxes) == 1
    np.testing.assert_allclose(faces.boxes, boxes.astype(float), atol=1e-2)  # in pixels
    np.testing.assert_allclose(faces.landmarks, landmarks.astype(float), atol=1e-2)
    np.testing.assert_allclose(faces.scores, chances.astype(float), atol=1e-5)


def test_the_command_draws_and_says_what_it_found(example, monkeypatch, capsys, tmp_path):
    file = tmp_path / "faces.jpg"
    monkeypatch.setattr(sys, "argv", ["detect_faces.py", str(file)])
    example.run(example.main)
    assert capsys.readouterr().out.startswith("a face at ")
    assert file.read_bytes().startswith(b"\xff\xd8\xff")


@pytest.mark.parametrize("size", [(30, 50), (64, 64)])
def test_where_there_is_no_face_nothing_is_found(example, size):
    pixels = np.full((1, 3, *size), 127.0, np.float32)
    *_, faces = example.detect(example.networks(xpconv.backend()), pixels)
    assert faces.boxes.shape == (0, 4)
    assert faces.landmarks.shape == (0, 5, 2)
