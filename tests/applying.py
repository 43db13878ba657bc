"""An operator applied and pulled back in one go."""

import importlib

from cases import normal

import xpconv


def compiled(backend, function):
    """The function, on JAX as one program.

    It is the same code, and call by call the compiler would take longer than the rest of the tests together.
    """
    return importlib.import_module("jax").jit(function) if backend.name == "jax" else function


def value_and_gradients(backend, op, hosts, *, dtype=None, **options):
    """y, a dy drawn for it (on the host), and the gradients, for arrays given on the host.

    Floating arrays are cast to the dtype of this name there, which NumPy need not have.
    """
    drawn = []

    def run(*arrays):
        y, pullback = xpconv.vjp(op, *arrays, **options)
        leading = y[0] if isinstance(y, tuple) else y
        drawn.append(normal(*leading.shape, seed=9).astype("complex128" if "complex" in str(leading.dtype) else float))
        return y, pullback(backend.xp.asarray(drawn[0], dtype=leading.dtype, device=backend.device))

    arrays = [None if host is None else backend.asarray(host) for host in hosts]
    if dtype is not None:
        floating = [host is not None and host.dtype.kind == "f" for host in hosts]
        wanted = getattr(backend.xp, dtype)
        arrays = [backend.xp.astype(a, wanted) if f else a for a, f in zip(arrays, floating, strict=True)]
    y, gradients = compiled(backend, run)(*arrays)
    return y, drawn[0], gradients
