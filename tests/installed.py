"""What a wheel alone must give, in an environment that has nothing else: run there by `.ci/run`, not by pytest.

    python tests/installed.py [--cli]

``--cli``: the extra of that name is there, too.
"""

import argparse
import subprocess
import sys
from importlib.metadata import metadata, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import numbaconv
from numbaconv.bench import layer_table

#: What this environment must not have, and what then asks for it: an error that names the command.
ABSENT = {
    "ml_dtypes": ("bfloat16", lambda: numbaconv.tune((1, 1, 8), (1, 1, 3), dtype="bfloat16", backend="reference")),
    "matplotlib": ("plot", lambda: numbaconv.plot.filters(np.ones((1, 1, 3, 3)))),
    "safetensors": ("safetensors", lambda: numbaconv.layers.Conv2d(1, 1, 1).save("layer.safetensors")),
}


def check_core() -> None:
    """The package is the wheel's, with its data; it computes; what is missing is named with its command."""
    package = Path(numbaconv.__file__).parent
    assert package.parent.name == "site-packages", package
    assert (package / "py.typed").is_file()
    assert len(layer_table.read("speed.csv")) == 40
    assert len(layer_table.read("networks.csv")) == 484
    assert numbaconv.__version__ == version("numbaconv")
    found = metadata("numbaconv")
    assert found["License-Expression"] == "MIT"
    assert found["Description-Content-Type"] == "text/markdown"
    x, w = np.ones((1, 2, 9), np.float32), np.ones((3, 2, 3), np.float32)
    assert (numbaconv.conv1d(x, w, padding=1)[..., 1:-1] == 6).all()
    for library, (extra, use) in ABSENT.items():
        assert find_spec(library) is None, f"{library} is here, so that nothing can be said of its absence"
        try:
            use()
        except ImportError as error:
            assert f"pip install 'numbaconv[{extra}]'" in str(error), error
        else:
            raise AssertionError(f"{extra} works without {library}")


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The script that was installed beside this Python."""
    script = str(Path(sys.executable).with_name("numbaconv"))
    return subprocess.run([script, *arguments], capture_output=True, text=True, timeout=120, check=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cli", action="store_true", help="the command line's extra is there")
    if parser.parse_args().cli:
        done = command("info")
        assert done.returncode == 0, done.stderr
        assert version("numbaconv") in done.stdout
        return
    check_core()
    done = command("info")
    assert done.returncode == 2, done.stdout
    assert "pip install 'numbaconv[cli]'" in done.stderr


if __name__ == "__main__":
    main()
