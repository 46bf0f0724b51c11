"""An import hook that calls functions before and after modules execute. It imports only the standard library."""

from __future__ import annotations

import sys
import threading
from importlib.abc import Loader, MetaPathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class Finder(MetaPathFinder):
    """A finder that asks the other finders for some modules, and calls functions before and after these execute.

    Args:
        names: full names of the modules
        before_look_up: called with this finder before any module is looked up
        before: called with each module in `names` before it executes
        after: called with each module in `names` after it has executed
    """

    def __init__(
        self,
        names: Container[str],
        *,
        before_look_up: Callable[[Finder], None],
        before: Callable[[ModuleType], None],
        after: Callable[[ModuleType], None],
    ) -> None:
        self._names = names
        self._before_look_up = before_look_up
        self._before = before
        self._after = after
        # The names that each thread is looking up. A similar finder of another package asks all finders again,
        # including this one, which must not start a second look-up.
        self._asking = threading.local()

    def go_first(self) -> None:
        """Move this finder to the start of ``sys.meta_path``.

        The list is replaced in one step: another thread that iterates over a shorter list would miss a finder.
        """
        sys.meta_path[:] = [self, *(finder for finder in sys.meta_path if finder is not self)]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        self._before_look_up(self)
        if fullname not in self._names or fullname in (asking := vars(self._asking)):
            return None
        asking[fullname] = True
        try:
            for finder in list(sys.meta_path):
                find_spec = getattr(finder, "find_spec", None)
                if finder is self or find_spec is None:
                    continue
                spec: ModuleSpec | None = find_spec(fullname, path, target)
                if spec is not None:
                    if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                        spec.loader = _Loader(spec.loader, self._before, self._after)
                    return spec
            return None
        finally:
            del asking[fullname]


class _Loader(Loader):
    """Loads one module with its original loader, and calls the functions. The module keeps its original loader."""

    def __init__(
        self, loader: Loader, before: Callable[[ModuleType], None], after: Callable[[ModuleType], None]
    ) -> None:
        self._loader = loader
        self._before = before
        self._after = after

    def __getattr__(self, name: str) -> Any:
        if name == "_loader":  # `copy` asks for attributes before `_loader` is set
            raise AttributeError(name)
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._before(module)
        self._loader.exec_module(module)
        self._after(module)
