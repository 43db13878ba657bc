"""The scripts that draw, by the commands that the README gives for its pictures."""

import importlib
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from cases import normal

import xpconv
from xpconv.networks.weights import load_weights

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
pytest.importorskip("safetensors")

ROOT = pathlib.Path(__file__).parents[1]
COMMANDS = re.findall(r"^python (examples/\w+\.py) (.*examples/pictures/\S+)$", (ROOT / "README.md").read_text(), re.M)


def run(directory, script, *arguments):
    """Run an example as a program in a directory."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(ROOT / script), *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A directory as the commands expect it: with weights in it, of a training that is cut short."""
    directory = tmp_path_factory.mktemp("workshop")
    (directory / "examples" / "pictures").mkdir(parents=True)
    done = run(directory, "examples/train_cnn.py", "--save", "digits.safetensors", "--epochs", "1", "--quiet")
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    return importlib.import_module


@pytest.mark.parametrize("script, arguments", [c for c in COMMANDS if "faces" not in c[0]])
def test_the_commands_of_the_readme_draw_its_pictures(workshop, example, monkeypatch, script, arguments):
    picture = workshop / arguments.split()[-1]
    done = run(workshop, script, *arguments.split())
    assert done.returncode == 0, done.stderr
    drawn = picture.read_bytes()
    assert drawn.startswith(b"\x89PNG")
    monkeypatch.chdir(workshop)
    monkeypatch.setattr(sys, "argv", [script, *arguments.split()])
    example(pathlib.Path(script).stem).main()
    assert picture.read_bytes() == drawn  # the same again


def test_every_picture_has_a_command_and_is_shown():
    pictures = {path.name for path in (ROOT / "examples" / "pictures").iterdir()}
    assert pictures == {arguments.rpartition("/")[2] for _, arguments in COMMANDS}
    shown = re.findall(r"!\[[^]]+\]\(examples/pictures/([^)]+)\)", (ROOT / "README.md").read_text())
    assert sorted(shown) == sorted(pictures)


@pytest.mark.parametrize(
    "script, arguments, words",
    [
        ("draw_filters", ["nowhere.safetensors", "a.png"], "nowhere.safetensors"),
        ("draw_im2col", ["a.png", "--channels", "4"], "give 1 to 3 channels"),
        ("draw_im2col", ["a.png", "--kernel", "5"], "give a smaller kernel"),
        ("draw_im2col", ["nowhere/a.png"], "nowhere"),
        ("detect_faces", ["a.png", "--smallest", "0"], "smallest is 0"),
        ("detect_faces", ["a.png", "--image", "nowhere.jpg"], "nowhere.jpg"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(example, monkeypatch, capsys, tmp_path, script, arguments, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments])
    module = example(script)
    with pytest.raises(SystemExit) as raised:
        module.run(module.main)
    error = capsys.readouterr().err
    assert raised.value.code == 2
    assert error.startswith(f"{script}.py: ") and words in error and error.count("\n") == 1


def test_saliency_is_the_slope_of_the_score(example):
    windows = {"filter_size": 3, "pad": 1}
    network = xpconv.SimpleConvNet((1, 8, 8), windows, weight_init_std="he", dtype="float64", rng=0)
    images, labels, direction, step = normal(3, 1, 8, 8), np.array([2, 9, 2]), normal(3, 1, 8, 8, seed=1), 1e-6
    gradient = example("draw_saliency").saliency(network, images, labels)
    ahead, behind = (network.predict(images + sign * step * direction)[range(3), labels] for sign in (1, -1))
    np.testing.assert_allclose((gradient * direction).sum(axis=(1, 2, 3)), (ahead - behind) / (2 * step), rtol=1e-6)


def test_a_mosaic_has_every_picture_in_its_place(example):
    tiles = example("drawing").mosaic(normal(5, 2, 3), columns=3)
    assert tiles.shape == (5, 11)
    for k, picture in enumerate(normal(5, 2, 3)):
        row, column = divmod(k, 3)
        np.testing.assert_array_equal(tiles[3 * row : 3 * row + 2, 4 * column : 4 * column + 3], picture)
    assert np.isnan(tiles).sum() == tiles.size - 5 * 6


@pytest.mark.parametrize("of_smaller", [False, True])
def test_boxes_that_stay_are_apart(example, of_smaller):
    detect_faces = example("detect_faces")
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 30, (60, 2))
    boxes = np.hstack([corners, corners + rng.integers(1, 20, (60, 2))])
    scores = rng.permutation(60)
    stay = []
    for i in scores.argsort()[::-1]:
        pixels = {(x, y) for x in range(boxes[i, 0], boxes[i, 2]) for y in range(boxes[i, 1], boxes[i, 3])}
        if all(
            len(pixels & other) <= 0.4 * (min(len(pixels), len(other)) if of_smaller else len(pixels | other))
            for _, other in stay
        ):
            stay.append((i, pixels))
    found = detect_faces.apart(detect_faces.Found(boxes, scores, boxes), 0.4, of_smaller)
    assert found.tolist() == [i for i, _ in stay]
    assert 1 < len(stay) < 60


def test_a_state_dict_becomes_safetensors(example, tmp_path):
    torch = pytest.importorskip("torch")
    state = {"a": torch.asarray(normal(4, 3)).T, "n": torch.tensor(7)}
    torch.save(state | {"b": state["a"]}, tmp_path / "model.pt")  # transposed, and shared
    example("torch_to_safetensors").convert(tmp_path / "model.pt", tmp_path / "model.safetensors")
    found = load_weights(tmp_path / "model.safetensors")
    assert found.keys() == {"a", "b", "n"}
    for name in ("a", "b"):
        np.testing.assert_array_equal(found[name], normal(4, 3).T, strict=True)
    assert found["n"] == 7


@pytest.mark.parametrize("content", [pathlib.PurePosixPath("a"), {"model": {}}, [1.0]])
def test_what_is_no_state_dict_is_refused(example, tmp_path, content):
    torch = pytest.importorskip("torch")
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt holds .*; save model\.state_dict\(\)"):
        example("torch_to_safetensors").convert(tmp_path / "model.pt", tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()
