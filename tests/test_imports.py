"""The structure: who imports whom, what importing the package costs, and what it must not bring in."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import numbaconv

PACKAGE = Path(numbaconv.__file__).parent

#: For each room, the rooms of the package that it may import. Rooms are the longest prefixes listed here.
ALLOWED = {
    "": {
        "errors",
        "functional",
        "grad",
        "prepared",
        "explain",
        "plan",
        "backends.registry",
        "backends.subnormals",
        "backends",
        "_version",
        "tuning",
        "layers",
        "plot",
        "jit",
        "streaming",
        "interop",
        "progress",
    },
    "_version": set(),
    "environment": set(),
    "errors": set(),
    "plan": {"border", "errors"},
    "ranks": {"border", "errors"},
    "border": {"errors"},
    "files": {"errors"},
    "memory": {"errors"},
    "device_arrays": {"plan", "errors", "extras"},
    "arrays": {"extras", "plan", "errors", "device_arrays"},
    "columns": {"arrays", "border", "memory", "plan", "errors", "backends.subnormals"},
    "routes": {
        "arrays",
        "device_arrays",
        "plan",
        "errors",
        "backends.base",
        "backends.activations",
        "backends.functions",
    },
    "compiling": set(),
    "progress": {"compiling", "extras"},
    "functional": {"dispatch", "routes", "separable", "columns", "arrays", "plan", "errors", "ranks"},
    "separable": {
        "memory",
        "error_state",
        "dispatch",
        "routes",
        "arrays",
        "device_arrays",
        "plan",
        "errors",
        "backends.base",
        "backends.registry",
        "backends.subnormals",
    },
    "backward": {
        "error_state",
        "dispatch",
        "routes",
        "functional",
        "arrays",
        "device_arrays",
        "plan",
        "errors",
        "backends.activations",
        "backends.base",
        "backends.subnormals",
    },
    "grad": {"backward", "routes", "arrays", "plan", "ranks"},
    "prepared": {
        "border",
        "dispatch",
        "routes",
        "explain",
        "functional",
        "arrays",
        "device_arrays",
        "plan",
        "errors",
        "backends.base",
        "backends.registry",
        "backends.activations",
        "backends.subnormals",
    },
    "streaming": {
        "memory",
        "border",
        "error_state",
        "dispatch",
        "functional",
        "prepared",
        "arrays",
        "plan",
        "errors",
        "backends.base",
        "backends.registry",
        "backends.activations",
    },
    "jit": {"functional", "grad", "backward", "arrays", "plan", "errors", "backends.cpu", "backends.activations"},
    "explain": {
        "error_state",
        "border",
        "routes",
        "plan",
        "errors",
        "backends.base",
        "backends.registry",
        "backends.winners",
    },
    "measure": {"error_state", "memory", "arrays", "plan", "errors", "extras", "backends.base", "backends.winners"},
    "tuning": {"border", "measure", "explain", "plan", "errors", "progress", "backends.base", "backends.registry"},
    "dispatch": {
        "memory",
        "backends.pieces",
        "error_state",
        "measure",
        "routes",
        "arrays",
        "device_arrays",
        "plan",
        "errors",
        "backends.winners",
        "backends.registry",
        "backends.base",
        "backends.activations",
        "backends.subnormals",
    },
    "extras": {"errors"},
    "__main__": {"cli"},
    "cli": {
        "bench",
        "plot",
        "functional",
        "grad",
        "prepared",
        "explain",
        "tuning",
        "plan",
        "errors",
        "extras",
        "files",
        "progress",
        "backends.registry",
        "backends.winners",
        "_version",
    },
    "bench": {"functional", "grad", "prepared", "plan", "errors", "environment", "compiling", "backends.cpu"},
    "plot": {"bench", "arrays", "plan", "errors", "extras", "files"},
    "layers": {
        "error_state",
        "functional",
        "grad",
        "prepared",
        "dispatch",
        "arrays",
        "plan",
        "errors",
        "ranks",
        "border",
        "extras",
        "files",
        "memory",
        "backends.activations",
    },
    "interop": {"interop.torch", "interop.jax", "interop.onnx", "interop.dask"},
    "interop.spec": {"functional", "grad", "plan", "routes"},
    "interop.activations": {"backends.activations", "backends.functions", "errors"},
    "interop.torch": {
        "interop.spec",
        "interop.activations",
        "functional",
        "backward",
        "device_arrays",
        "plan",
        "errors",
        "extras",
        "ranks",
        "backends.registry",
    },
    "interop.jax": {
        "interop.spec",
        "interop.activations",
        "functional",
        "backward",
        "arrays",
        "plan",
        "errors",
        "extras",
        "ranks",
        "dispatch",
        "backends.registry",
        "backends.subnormals",
    },
    "interop.onnx": {"error_state", "functional", "arrays", "plan", "errors", "extras"},
    "interop.dask": {
        "error_state",
        "functional",
        "grad",
        "backward",
        "dispatch",
        "routes",
        "arrays",
        "plan",
        "errors",
        "extras",
        "ranks",
        "backends.base",
        "backends.registry",
        "backends.subnormals",
    },
    "backends": {"backends.registry"},
    "backends.registry": {"backends.base", "backends.winners", "backends.subnormals", "environment", "plan", "errors"},
    "backends.winners": {"backends.base", "plan", "environment", "errors", "files", "_version"},
    "backends.base": {"arrays", "plan", "environment", "errors", "backends.activations"},
    "backends.pieces": {"arrays", "plan", "backends.base"},
    "error_state": set(),
    "backends.activations": {"errors", "backends.functions"},
    "backends.functions": set(),
    "backends.float_mode": {"errors"},
    "backends.subnormals": {"backends.float_mode", "environment", "errors"},
    "backends.tables": {"arrays", "plan"},
    "backends.toom_cook": {"arrays"},
    "backends.cuda": {
        "arrays",
        "compiling",
        "device_arrays",
        "plan",
        "errors",
        "backends.base",
        "backends.tables",
        "backends.toom_cook",
        "backends.activations",
    },
    "backends.reference": {"arrays", "plan", "errors", "backends.base", "backends.tables", "backends.activations"},
    "backends.cpu": {
        "_version",
        "files",
        "memory",
        "backends.registry",
        "arrays",
        "compiling",
        "plan",
        "errors",
        "backends.base",
        "backends.tables",
        "backends.toom_cook",
        "backends.activations",
        "backends.float_mode",
    },
}
#: Which third-party packages each room may import; NumPy is allowed wherever a room is not listed.
OUTSIDE = {
    "plan": set(),
    "environment": set(),
    "errors": set(),
    "ranks": set(),
    "backends.functions": {"numpy", "numba"},
    "backends.winners": {"platformdirs"},
    "backends.float_mode": {"numba", "llvmlite"},
    "cli": {"numpy", "numba"},
    "interop.torch": {"numpy", "torch"},
    "interop.jax": {"numpy", "jax"},
    "interop.onnx": {"numpy", "onnx"},
    "jit": {"numpy", "numba"},
    "interop.dask": {"numpy", "numba"},
    "bench": {"numpy", "numba", "llvmlite", "rich", "torch", "onnx", "onnxruntime"},
    "backends.cpu": {"numpy", "numba", "llvmlite"},
    "backends.cuda": {"numpy", "numba", "llvmlite"},
    # Results are arrays of the operands' library, which the caller has imported.
    "device_arrays": {"numpy", "numba", "torch", "cupy"},
}


def room_of(module):
    parts = module.split(".")
    for length in range(len(parts), -1, -1):
        name = ".".join(parts[:length])
        if name in ALLOWED:
            return name
    raise AssertionError(module)


def module_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """Modules that a file imports: inside the package (without its name), and outside."""
    module, inside, outside = module_of(path), set(), set()
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    package = [part for part in package if part]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            outside |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            outside.add(node.module)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                full = ".".join([*base, alias.name])
                is_module = (PACKAGE / Path(*full.split("."))).with_suffix(".py").exists() or (
                    PACKAGE / Path(*full.split("."))
                ).is_dir()
                inside.add(full if is_module else ".".join(base))
    return inside, outside


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=[module_of(path) or "__init__" for path in FILES])
def test_who_imports_whom(path):
    room = room_of(module_of(path))
    inside, outside = imports(path)
    for target in inside:
        other = room_of(target)
        assert other == room or other in ALLOWED[room], f"{module_of(path)} imports {target}"
    foreign = {name.split(".")[0] for name in outside} - sys.stdlib_module_names - {"numbaconv"}
    assert foreign <= OUTSIDE.get(room, {"numpy"}), f"{module_of(path)} imports {foreign}"
    assert not any(name.startswith("numbaconv") for name in outside), "imports inside the package are relative"


def test_every_room_is_used():
    assert {room_of(module_of(path)) for path in FILES} == set(ALLOWED)


def test_kernels_never_see_a_plan():
    inside, _ = imports(PACKAGE / "backends" / "cpu" / "direct.py")
    source = (PACKAGE / "backends" / "cpu" / "direct.py").read_text()
    assert "ConvPlan" not in source
    assert not any(target.startswith("plan.problem") for target in inside)


def test_the_oracle_shares_no_code():
    source = ast.parse((Path(__file__).parent / "oracle.py").read_text())
    modules = {node.module for node in ast.walk(source) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(source) if isinstance(node, ast.Import) for alias in node.names}
    assert modules == {"itertools", "math", "numpy"}


def python(program, **environment):
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def test_importing_brings_in_neither_numba_nor_scipy():
    loaded = python("import sys, numbaconv; print(*{name.split('.')[0] for name in sys.modules})").split()
    assert not {"numba", "llvmlite", "scipy", "ml_dtypes", "torch"} & set(loaded)
    backends = python("import sys, numbaconv; print(*(n for n in sys.modules if n.startswith('numbaconv.backends.')))")
    assert set(backends.split()) == {
        f"numbaconv.backends.{name}"
        for name in ("registry", "base", "pieces", "activations", "functions", "winners", "subnormals")
    }


def test_importing_brings_in_little():
    """What takes its time is imported when it is needed; `perf/startup.py` measures how long the rest takes."""
    program = "import sys, numpy; before = set(sys.modules); import numbaconv; print(*(set(sys.modules) - before))"
    others = {name.split(".")[0] for name in python(program).split()} - sys.stdlib_module_names
    assert others == {"numbaconv"}
    slow = {"asyncio", "email", "http", "importlib.metadata", "multiprocessing", "sqlite3", "ssl", "unittest", "xml"}
    assert not slow & set(python(program).split())


def test_small_files():
    """A reader finds the room from its name, and the room is small."""
    for path in [*FILES, *Path(__file__).parent.rglob("*.py")]:
        assert len(path.read_text().splitlines()) <= 500, path


def test_completion_offers_the_public_names():
    """All of them, before any is asked for, and nothing else; asking for one imports it."""
    program = """
import rlcompleter, sys
import numbaconv

assert dir(numbaconv) == sorted(numbaconv.__all__), set(dir(numbaconv)) ^ set(numbaconv.__all__)
assert {"layers", "plot", "jit", "grad", "interop", "progress", "functional", "errors"} <= set(dir(numbaconv))
offered, at = [], 0
completer = rlcompleter.Completer({"numbaconv": numbaconv})
while (found := completer.complete("numbaconv.", at)) is not None:
    offered, at = [*offered, found.split(".")[1].rstrip("()")], at + 1
assert set(offered) == {name for name in numbaconv.__all__ if not name.startswith("_")}, offered
assert dir(numbaconv.interop) == ["dask", "jax", "onnx", "torch"]
assert "torch" not in sys.modules
assert numbaconv.layers.Conv2d and numbaconv.jit.conv2d is numbaconv.conv2d and numbaconv.plot.feature_maps
for module in (numbaconv, numbaconv.interop):
    try:
        module.layer
    except AttributeError as error:
        assert "has no attribute 'layer'" in str(error)
    else:
        raise AssertionError(module)
"""
    python(program)
    bare = "import sys, numbaconv; dir(numbaconv); print(*{name.split('.')[0] for name in sys.modules})"
    assert not {"numba", "matplotlib", "rich"} & set(python(bare).split())
