"""Backends: a registry, what backends are made of, and the backends themselves, loaded when asked for.

``numbaconv.backends`` is this package, and also the public function ``numbaconv.backends()``: calling the
package calls `registry.backends`. A plain function of that name would hide the package from
``import numbaconv.backends.cpu as cpu``.
"""

import sys
from types import ModuleType

from .registry import BackendStatus, backends


class _CallablePackage(ModuleType):
    def __call__(self) -> dict[str, BackendStatus]:
        return backends()


_CallablePackage.__call__.__doc__ = backends.__doc__
sys.modules[__name__].__class__ = _CallablePackage
