"""What every test needs: no test reads or writes what the user has tuned."""

import os

import pytest


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """A folder of the tests' own, in the environment so that their processes have it, too."""
    before = os.environ.get("NUMBACONV_CACHE_DIR")
    os.environ["NUMBACONV_CACHE_DIR"] = str(tmp_path_factory.mktemp("tuned"))
    yield
    if before is None:
        del os.environ["NUMBACONV_CACHE_DIR"]
    else:
        os.environ["NUMBACONV_CACHE_DIR"] = before
