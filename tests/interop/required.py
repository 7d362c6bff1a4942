"""Libraries that tests here are about: without one they are skipped, where they must be there they fail."""

import os
from importlib import import_module

import pytest


def library(name):
    """The library; `NUMBACONV_REQUIRE_INTEROP` says that it must be there."""
    if os.environ.get("NUMBACONV_REQUIRE_INTEROP"):
        return import_module(name)
    return pytest.importorskip(name)
