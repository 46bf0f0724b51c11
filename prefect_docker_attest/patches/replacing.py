"""Replaces methods of other packages' classes, and restores them."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_MARK = "_prefect_docker_attest"
_replaced: list[tuple[type, str, Any, Any]] = []
_lock = threading.Lock()


def replace(owner: type, name: str, wrap: Callable[[Any], Callable[..., Any]]) -> None:
    """Replace a method with a wrapper of it. A method that was replaced already is not replaced again.

    Args:
        owner: the class that gets the replacement; it can have inherited the method
        name: name of the method
        wrap: function that takes the original method and returns the replacement

    Raises:
        AttributeError: the class has no such method
        TypeError: the class cannot be changed
    """
    with _lock:
        original = getattr(owner, name)
        if is_ours(original):
            return
        replacement: Any = functools.wraps(original)(wrap(original))
        # The mark is the replacement itself. functools.wraps copies the mark to wrappers of other packages, so a
        # wrapper's mark is not the wrapper itself.
        setattr(replacement, _MARK, replacement)
        own = vars(owner).get(name)
        setattr(owner, name, replacement)
        _replaced.append((owner, name, replacement, own))


def restore() -> None:
    """Restore all original methods, except for those that another package has replaced since."""
    with _lock:
        while _replaced:
            owner, name, replacement, own = _replaced.pop()
            if vars(owner).get(name) is not replacement:
                continue
            if own is None:
                delattr(owner, name)
            else:
                setattr(owner, name, own)


def is_ours(method: object) -> bool:
    """Whether `replace` created this method."""
    return getattr(method, _MARK, None) is method
