"""The public checks: each passes what is right and catches what is wrong, or it would be no check."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import reference as ref
from cases import CASES, integers, normal, spread

import xpconv
from xpconv.testing import assert_close, check_adjoint, check_vjp

# --- assert_close


def test_equal_arrays_pass(backend):
    x = backend.asarray(normal(2, 3))
    assert_close(x, normal(2, 3))
    assert_close(x, normal(2, 3), like=x)
    assert_close(x, x)
    assert_close(backend.asarray(integers(9, 3)), integers(9, 3), like=x)
    assert_close(backend.asarray(np.array([True, False])), np.array([True, False]), like=x)
    assert_close(backend.asarray(np.ones((0, 2))), np.ones((0, 2)), like=x)
    assert_close(backend.asarray(np.asarray(2.0)), 2.0, like=x)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5), ("complex128", 1e-10), ("complex64", 1e-5)]
)
def test_the_tolerance_is_a_share_of_the_largest_entry(backend, dtype, tolerance):
    desired = np.array([100.0, 1e-8]).astype(dtype)
    near, far = desired.copy(), desired.copy()
    near[1] += 90 * tolerance
    far[1] += 110 * tolerance
    assert_close(backend.asarray(near), desired)
    with pytest.raises(AssertionError, match=r"differs at 1 of 2 places, the most at \(1,\)"):
        assert_close(backend.asarray(far), desired)
    assert_close(backend.asarray(far), desired, rtol=2 * tolerance)
    assert_close(backend.asarray(far), desired, atol=20 * tolerance)


def test_whole_numbers_are_exact(backend):
    big = np.array([2**62, 2**62 + 1])
    assert_close(backend.asarray(big), big)
    with pytest.raises(AssertionError, match="4611686018427387905, wanted 4611686018427387904"):
        assert_close(backend.asarray(big), big - [0, 1])
    with pytest.raises(AssertionError, match="255, wanted 0"):
        assert_close(backend.asarray(np.array([255], np.uint8)), np.array([0], np.uint8))


def test_narrow_floats():
    torch = pytest.importorskip("torch")
    ones = torch.ones(3, dtype=torch.bfloat16)
    assert_close(ones, torch.full((3,), 1.01, dtype=torch.bfloat16))
    with pytest.raises(AssertionError, match="differs at 3 of 3"):
        assert_close(ones, torch.full((3,), 1.1, dtype=torch.bfloat16))
    with pytest.raises(AssertionError, match="has dtype bfloat16; wanted float16"):
        assert_close(ones, np.ones(3, np.float16))
    assert_close(ones.to(torch.float16), np.full(3, 1.005, np.float16))


def test_nan_is_nan_and_infinity_is_infinity(backend):
    odd = np.array([np.nan, np.inf, -np.inf, 1.0])
    assert_close(backend.asarray(odd), odd)
    for wrong in ([0, np.inf, -np.inf, 1], [np.nan, np.nan, -np.inf, 1], [np.nan, -np.inf, -np.inf, 1], [np.nan] * 4):
        with pytest.raises(AssertionError, match="differs at"):
            assert_close(backend.asarray(np.array(wrong)), odd)
        with pytest.raises(AssertionError, match="differs at"):
            assert_close(backend.asarray(odd), np.array(wrong))


@pytest.mark.parametrize(
    ("desired", "says"),
    [
        (np.ones((3, 2)), r"has shape \(2, 3\); wanted \(3, 2\)"),
        (np.ones((2, 3, 1)), r"has shape \(2, 3\); wanted \(2, 3, 1\)"),
        (np.asarray(1.0), r"has shape \(2, 3\); wanted \(\)"),
        (np.ones((2, 3), "float32"), "has dtype float64; wanted float32"),
        (np.ones((2, 3), "int64"), "has dtype float64; wanted int64"),
    ],
)
def test_shape_and_dtype_count(backend, desired, says):
    with pytest.raises(AssertionError, match=says):
        assert_close(backend.asarray(np.ones((2, 3))), desired)


def test_library_and_device_count():
    strict = pytest.importorskip("array_api_strict")
    here, there = strict.ones(3), strict.ones(3, device=strict.Device("device1"))
    with pytest.raises(AssertionError, match=r"is an array of array_api_compat.numpy; wanted array_api_strict"):
        assert_close(np.ones(3), np.ones(3), like=here)
    with pytest.raises(AssertionError, match=r"is on device .*CPU_DEVICE.*; wanted .*device1"):
        assert_close(here, np.ones(3), like=there)
    with pytest.raises(AssertionError, match=r"is on device .*device1.*; wanted .*CPU_DEVICE"):
        assert_close(there, here)
    with pytest.raises(AssertionError, match=r"got a float, 1\.0; wanted an array"):
        assert_close(1.0, 1.0)


# --- check_adjoint


def test_a_map_and_its_adjoint_pass(backend):
    matrix = backend.asarray(normal(4, 3))
    x, y = backend.asarray(normal(3, seed=1)), backend.asarray(normal(4, seed=2))
    xp = backend.xp
    check_adjoint(lambda x: xp.matmul(matrix, x), lambda y: xp.matmul(xp.matrix_transpose(matrix), y), x, y)


def test_what_is_no_adjoint_is_caught(backend):
    matrix = backend.asarray(normal(3, 3))
    x, y = backend.asarray(normal(3, seed=1)), backend.asarray(normal(3, seed=2))
    xp = backend.xp
    with pytest.raises(AssertionError, match=r"<forward\(x\), y> is .* and <x, backward\(y\)>"):
        check_adjoint(lambda x: xp.matmul(matrix, x), lambda y: xp.matmul(matrix, y), x, y)
    with pytest.raises(AssertionError, match=r"backward\(y\) has shape \(3, 1\); wanted \(3,\)"):
        check_adjoint(lambda x: x, lambda y: xp.reshape(y, (3, 1)), x, y)
    with pytest.raises(AssertionError, match=r"forward\(x\) has dtype float32; wanted float64"):
        check_adjoint(lambda x: xp.astype(x, xp.float32), lambda y: y, x, y)


def test_the_adjoint_of_a_complex_map_conjugates(backend):
    factor = 1 + 2j
    x, y = (backend.asarray(normal(3, seed=s) + 1j * normal(3, seed=s + 1)) for s in (1, 3))
    check_adjoint(lambda x: x * factor, lambda y: y * factor.conjugate(), x, y)
    with pytest.raises(AssertionError):
        check_adjoint(lambda x: x * factor, lambda y: y * factor, x, y)


# --- check_vjp: it passes every operator (test_operators.py) and catches every mistake below


def with_pullback(op, change):
    """The operator with a pullback whose gradients are changed: change(gradients, dy) gives others."""

    def wrong(*arrays, **options):
        return op(*arrays, **options)

    def apply(*arrays, **options):
        y, pullback = xpconv.vjp(op, *arrays, **options)
        return y, lambda dy, without=(): tuple(change(list(pullback(dy)), dy))

    wrong.with_pullback = apply
    return wrong


def changed(case, which, change):
    """The case's operator with one gradient changed."""

    def one(gradients, dy):
        gradients[which] = change(gradients[which])
        return gradients

    return with_pullback(case.op, one)


def without_its_largest_element(gradient):
    gradient = gradient.copy()
    gradient.reshape(-1)[np.argmax(np.abs(gradient))] = 0
    return gradient


def leaves_alone(case, which, change):
    """Whether a change is none for this gradient, which may be as large everywhere or have one element."""
    y, pullback = xpconv.vjp(case.op, *case.arrays, **case.options)
    y = y[0] if isinstance(y, tuple) else y
    gradient = pullback(np.asarray(normal(*y.shape)))[which]
    return np.allclose(change(gradient), gradient, rtol=1e-6, atol=0)


MISTAKES = {
    "0.1 % too large": lambda g: g * 1.001,
    "0.1 % too small": lambda g: g * 0.999,
    "of the wrong sign": lambda g: -g,
    "without one element": without_its_largest_element,
    "with one element 1 % off": lambda g: 1.01 * g - 0.01 * without_its_largest_element(g),
    "turned round": lambda g: np.flip(g, axis=-1),
    "shifted by one": lambda g: np.roll(g, 1, axis=-1),
}


def gradients_of(cases):
    """Every case and every array of it that has a gradient."""
    return [
        pytest.param(case, i, id=f"{case}-{i}")
        for case in cases
        for i, array in enumerate(case.arrays)
        if array is not None and array.dtype.kind == "f"
    ]


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize(("case", "which"), gradients_of(CASES))
def test_a_wrong_gradient_is_caught(case, which, mistake):
    if leaves_alone(case, which, MISTAKES[mistake]):
        pytest.skip("leaves this gradient as it is")
    with pytest.raises(AssertionError, match=f"gradient {which} of .* along .* is .*, the central difference"):
        check_vjp(changed(case, which, MISTAKES[mistake]), *case.arrays, **case.options)


KERNELS = {
    "a tap is missing": lambda w: np.where(np.indices(w.shape[2:]).sum(axis=0) == 2, 0, w),
    "the kernel is not turned": lambda w: np.flip(w, axis=tuple(range(2, w.ndim))),
    "the kernel is transposed": lambda w: w.transpose(0, 1, *range(w.ndim - 1, 1, -1)),
    "the channels are exchanged": lambda w: np.swapaxes(w, 0, 1),
}


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("mistake", KERNELS)
@pytest.mark.parametrize("op", [xpconv.conv, xpconv.conv_transpose], ids=lambda op: op.__name__)
def test_a_wrong_kernel_in_the_gradients_of_a_convolution_is_caught(op, mistake, axes):
    if axes == 1 and mistake == "the kernel is transposed":
        pytest.skip("one axis is its own transpose")
    x, weight = normal(2, 3, *(6, 5, 6)[:axes]), normal(3, 3, *[3] * axes)
    wrong_weight = KERNELS[mistake](weight)

    def with_another_kernel(gradients, dy):
        _, pullback = xpconv.vjp(op, x, wrong_weight)
        return [pullback(dy)[0], gradients[1]]

    with pytest.raises(AssertionError, match="gradient 0 of"):
        check_vjp(with_pullback(op, with_another_kernel), x, weight)
    changed_weight = with_pullback(op, lambda g, dy: [g[0], KERNELS[mistake](g[1])])
    with pytest.raises(AssertionError, match="gradient 1 of"):
        check_vjp(changed_weight, x, weight)


# What y has of each element of its windows (N, C, K, L), for an operator that looks at windows.
SHARES = {
    "max_pool": lambda windows: windows == windows.max(axis=2, keepdims=True),
    "avg_pool": lambda windows: np.full(windows.shape, 1 / windows.shape[2]),
    "lp_pool": lambda windows: windows / np.sqrt((windows**2).sum(axis=2, keepdims=True)),
    "unfold": lambda windows: np.ones(windows.shape),
}


@pytest.mark.parametrize("op", SHARES)
@pytest.mark.parametrize("tap", [None, *range(6)])
def test_a_tap_that_is_missing_from_windows_is_caught(op, tap):
    """The gradient put together tap by tap is right, and wrong without any one."""
    x, options = spread(2, 3, 7, 6), {"kernel": (2, 3), "stride": 2}

    def tap_by_tap(gradients, dy):
        windows = ref.unfold(x, **options).reshape(2, 3, 6, -1)
        parts = SHARES[op](windows) * dy.reshape(2, 3, 6 if op == "unfold" else 1, -1)
        parts[:, :, [] if tap is None else tap] = 0
        return [ref.fold(parts.reshape(2, 18, -1), x.shape[2:], **options)]

    put_together = with_pullback(getattr(xpconv, op), tap_by_tap)
    if tap is None:
        check_vjp(put_together, x, **options)
        return
    with pytest.raises(AssertionError, match="gradient 0 of"):
        check_vjp(put_together, x, **options)


def test_a_missing_tap_is_caught_in_the_weights_too():
    def without_a_tap(gradients, dy):
        gradients[1][:, :, 1, 1] = 0
        return gradients

    with pytest.raises(AssertionError, match="gradient 1 of"):
        check_vjp(with_pullback(xpconv.conv, without_a_tap), normal(4, 8, 16, 16), normal(16, 8, 3, 3))


def write_to_dy(gradients, dy):
    dy[...] = 0
    return gradients


BREACHES = {
    "dy was written to": write_to_dy,
    "gradient 0 has dtype float32; wanted float64": lambda g, dy: [g[0].astype(np.float32), *g[1:]],
    r"gradient 1 has shape \(3, 5, 1\); wanted \(3, 5\)": lambda g, dy: [g[0], g[1][..., None]],
    "wanted 2 in a tuple": lambda g, dy: g[:1],
    "gradient 0 is a NoneType": lambda g, dy: [None, g[1]],
}


@pytest.mark.parametrize("says", BREACHES)
def test_a_breach_of_the_protocol_is_caught(says):
    with pytest.raises(AssertionError, match=says):
        check_vjp(with_pullback(xpconv.affine, BREACHES[says]), normal(4, 3), normal(3, 5))


def test_an_argument_that_is_written_to_is_caught():
    weight = normal(3, 5)

    def write(gradients, dy):
        weight[0, 0] += 1
        return gradients

    with pytest.raises(AssertionError, match="array 1 was written to"):
        check_vjp(with_pullback(xpconv.affine, write), normal(4, 3), weight)


def test_a_pullback_that_gives_something_else_the_second_time_is_caught():
    calls = []

    def growing(gradients, dy):
        calls.append(dy)
        return [g * (1 if len(calls) < 3 else 2) for g in gradients]

    with pytest.raises(AssertionError, match="gradient 0 from a second call differs"):
        check_vjp(with_pullback(xpconv.relu, growing), normal(4, 3))


def test_a_gradient_of_whole_numbers_is_caught():
    scores, labels = normal(4, 3), integers(3, 4)
    wrong = with_pullback(xpconv.softmax_cross_entropy, lambda g, dy: [g[0], labels])
    with pytest.raises(AssertionError, match="gradient 1 is a ndarray; wanted None"):
        check_vjp(wrong, scores, labels)


def test_a_gradient_that_moves_to_another_library_or_device_is_caught():
    strict = pytest.importorskip("array_api_strict")
    x = strict.asarray(normal(3), device=strict.Device("device1"))
    there = strict.Device("CPU_DEVICE")
    with pytest.raises(AssertionError, match="gradient 0 is on device"):
        check_vjp(with_pullback(xpconv.relu, lambda g, dy: [g[0].to_device(there)]), x)
    with pytest.raises(AssertionError, match=r"gradient 0 is an array of array_api_compat\.numpy"):
        check_vjp(with_pullback(xpconv.relu, lambda g, dy: [xpconv.to_numpy(g[0])]), x)


def test_a_wrong_gradient_of_complex_numbers_is_caught():
    hosts = [normal(*shape) + 1j * normal(*shape, seed=1) for shape in ((4, 3), (3, 5))]
    check_vjp(xpconv.affine, *hosts)
    with pytest.raises(AssertionError, match="gradient 0 of"):
        check_vjp(with_pullback(xpconv.affine, lambda g, dy: [g[0].conj(), g[1]]), *hosts)


def test_single_precision_is_refused():
    with pytest.raises(TypeError, match="array 1 has dtype float32; give float64"):
        check_vjp(xpconv.affine, normal(4, 3), normal(3, 5).astype(np.float32))


def test_an_empty_array_has_no_direction_to_go(backend):
    empty, weight = backend.asarray(normal(0, 3)), backend.asarray(normal(3, 2))
    check_vjp(xpconv.affine, empty, weight)
    lost = with_pullback(xpconv.affine, lambda g, dy: [None, g[1]])
    with pytest.raises(AssertionError, match="gradient 0 is a NoneType"):
        check_vjp(lost, empty, weight)


def test_large_arrays_cost_a_few_evaluations():
    calls = []

    def count(*arrays, **options):
        calls.append(arrays)
        return xpconv.relu(*arrays, **options)

    count.with_pullback = xpconv.relu.with_pullback
    check_vjp(count, normal(300, 300))
    assert len(calls) <= 8


# --- The plugin, in a suite of someone else's

SUITE = """
import numpy as np
import xpconv
from xpconv.testing import check_vjp

def test_mine(backend):
    x = backend.asarray(np.ones((2, 3)))
    check_vjp(xpconv.relu, x)
    if backend.name == "numpy-readonly":
        assert not x.flags.writeable
"""


def run_suite(tmp_path, *options):
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["xpconv.testing.plugin"]\n')
    (tmp_path / "test_mine.py").write_text(SUITE)
    path = pathlib.Path(xpconv.__file__).parents[1]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", "-rs", *options]
    return subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(path), "PYTEST_ADDOPTS": ""},  # options for this suite are not for that
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_fixture_works_in_other_suites(tmp_path):
    done = run_suite(tmp_path, "--backend", "numpy", "--backend", "numpy-readonly", "--backend", "numpy")
    assert done.returncode == 0, done.stdout
    assert "test_mine[numpy] PASSED" in done.stdout
    assert "test_mine[numpy-readonly] PASSED" in done.stdout
    assert "2 passed" in done.stdout


def test_a_backend_that_cannot_be_used_is_skipped_unless_it_was_asked_for(tmp_path):
    try:
        xpconv.backend("cupy")
    except (ImportError, RuntimeError) as error:
        reason = str(error)
    else:
        pytest.skip("CuPy can be used here")
    done = run_suite(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "test_mine[numpy] PASSED" in done.stdout
    assert "test_mine[cupy] SKIPPED" in done.stdout
    assert reason[:60] in done.stdout

    done = run_suite(tmp_path, "--backend", "cupy")
    assert done.returncode == 4
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.strip() == f"ERROR: --backend cupy: {reason}"


def test_an_unknown_backend_is_an_error(tmp_path):
    done = run_suite(tmp_path, "--backend", "numba")
    assert done.returncode == 4
    assert "unknown backend 'numba'; choose one of numpy" in done.stderr
