"""The command line."""

import pathlib
import subprocess
import sys

import pytest

import xpconv
from xpconv import cli
from xpconv.arrays.backends import survey
from xpconv.arrays.libraries import LIBRARIES


def test_info_has_a_line_for_every_backend(capsys):
    assert cli.main(["info"]) == 0
    first, _, *table = capsys.readouterr().out.splitlines()
    assert first.startswith(f"xpconv {xpconv.__version__}, Python 3.")
    assert table[0].split() == ["backend", "version", "device"]
    *rows, cudnn, mpi = table[1:]
    assert [line.split()[0] for line in rows] == list(LIBRARIES)
    for line, (_, version, device, why) in zip(rows, survey(), strict=True):
        assert line.split()[1] == version
        assert line.endswith(device or why)
        assert device or "pip install" in line
    assert cudnn.startswith("cudnn ")
    assert "for CuPy arrays" in cudnn or 'pip install "xpconv[cudnn]"' in cudnn
    assert mpi.startswith("mpi ")
    assert "NumPy arrays through the host, CuPy's " in mpi or 'pip install "xpconv[mpi]"' in mpi


def test_info_of_one_backend(capsys):
    assert cli.main(["info", "--backend", "numpy"]) == 0
    assert capsys.readouterr().out == "numpy on cpu\n"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["info", "--backend", "tensorflow"], "unknown backend 'tensorflow'; choose one of numpy, cupy"),
        (["info", "--backend", "numpy:9"], "backend 'numpy:9': no device '9'"),
        (["train"], "invalid choice: 'train'"),
        ([], "required: COMMAND"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(capsys, arguments, words):
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    assert raised.value.code == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert words in error
    assert error.startswith("xpconv")
    assert error.count("\n") == 1


def test_a_backend_that_cannot_be_used_is_status_2(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(SystemExit) as raised:
        cli.main(["info", "--backend", "cupy"])
    assert raised.value.code == 2
    error = capsys.readouterr().err
    assert "backend 'cupy' needs cupy" in error
    assert "pip install" in error
    assert error.count("\n") == 1


def test_operators_prints_a_table(capsys):
    assert cli.main(["operators", "--backend", "numpy"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("|")[1:5] == [" operator ", " layer ", " spatial axes ", " numpy "]
    assert any(line.startswith("| `conv` | `Convolution` | 1 and more | f64 f32") for line in lines)


def test_version(capsys):
    with pytest.raises(SystemExit) as raised:
        cli.main(["--version"])
    assert raised.value.code == 0
    assert capsys.readouterr().out == f"xpconv {xpconv.__version__}\n"


def test_python_dash_m():
    root = pathlib.Path(xpconv.__file__).parents[1]
    command = [sys.executable, "-m", "xpconv", "info", "--backend", "numpy"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "numpy on cpu\n", "")
