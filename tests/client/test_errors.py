"""The tree of errors."""

from __future__ import annotations

import inspect

from triptych import errors
from triptych.errors import TriptychError


def test_all_is_sorted_and_holds_the_tree() -> None:
    public = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception) and value.__module__ == errors.__name__
    }
    assert errors.__all__ == sorted(public)


def test_the_docstring_draws_the_whole_tree() -> None:
    drawn = {line.split("── ")[-1].split()[0] for line in (errors.__doc__ or "").splitlines() if "── " in line}
    assert drawn | {"TriptychError"} == set(errors.__all__)
    assert all(issubclass(getattr(errors, name), TriptychError) for name in errors.__all__)
