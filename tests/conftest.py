import os

import pytest

# JAX compiles anew for every shape, and tests have many: let it not spend time on making small arrays fast.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# On a GPU it would take most of the memory at its first array, and leave none to CuPy.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

pytest_plugins = ["xpconv.testing.plugin"]

# Random geometries: a few, always the same, or with --hypothesis-profile=thorough as many as it takes to be sure.
try:
    from hypothesis import settings

    settings.register_profile("default", max_examples=40, derandomize=True, deadline=None, database=None)
    settings.register_profile("thorough", max_examples=2000, deadline=None)
    settings.load_profile("default")
except ImportError:
    pass


@pytest.fixture(params=["numpy", "array-api-strict:device1"])
def quick_backend(request):
    """Backends on which a geometry costs milliseconds: NumPy as it is, and the bare standard."""
    from xpconv.arrays import backend
    from xpconv.arrays.libraries import strictest

    pytest.importorskip(request.param.partition(":")[0].replace("-", "_"))
    found = backend(request.param)
    with strictest(found):
        yield found


@pytest.fixture(autouse=True)
def scripts_do_what_their_tasks_did(monkeypatch):
    """Follow every script as soon as it is written, with NaNs in place of all that its task has computed."""
    from xpconv.execution import steps

    def checked(taken, made, arrays, origins, memory):
        script = write(taken, made, arrays, origins, memory)
        if script is None:
            return None
        wanted = None if made is None else made.tobytes()
        memory[...] = 255
        others = [a.copy() for a in arrays]
        results = {view for step in script.steps for position, view in step.views if position == len(step.operands) - 1}
        for view in results:
            view.of(others, origins)[...] = 255
        again = script.follow(others, origins)
        assert wanted is None or again.tobytes() == wanted
        for view in results:
            assert view.of(others, origins).tobytes() == view.of(arrays, origins).tobytes()
        return script

    write = steps.written
    monkeypatch.setattr(steps, "written", checked)


@pytest.fixture(params=["loops", "array code"])
def way(request, monkeypatch):
    """Let NumPy's convolutions take the loops, or the array code."""
    from xpconv.compiled import compiler
    from xpconv.selection import model

    if request.param == "array code":
        monkeypatch.setattr(model, "fused", lambda name, x: None)
    elif not compiler.available():
        pytest.skip("xpconv[numba] is not there or switched off")
    return request.param
