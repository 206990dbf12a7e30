"""The error tree: statuses, the way across processes, and finding the one that matters in a group."""

from __future__ import annotations

import pytest

import olm.errors
from olm.errors import Busy, ContextTooLong, InvalidOption, OlmError, error_from_wire, first_error


def test_every_error_is_exported() -> None:
    """`__all__` and the tree agree."""
    classes = {
        n for n, v in vars(olm.errors).items() if isinstance(v, type) and issubclass(v, OlmError)
    }

    assert classes <= set(olm.errors.__all__)


def test_errors_cross_processes_by_name() -> None:
    """Class, message and details survive."""
    error = error_from_wire("Busy", "later", {"retry_after_s": 2})

    assert type(error) is Busy
    assert (str(error), error.details["retry_after_s"], error.http_status) == ("later", 2, 503)


def test_an_unknown_name_becomes_a_plain_error() -> None:
    """A newer worker may know errors that we do not."""
    assert type(error_from_wire("Novel", "x", {})) is OlmError


def test_a_status_detail_overrides_the_class() -> None:
    """Some routes answer the same fault with another status."""
    assert InvalidOption("x").http_status == 500
    assert InvalidOption("x", status=400).http_status == 400


def test_first_error_looks_into_nested_groups() -> None:
    """Nurseries wrap; the edge unwraps."""
    wanted = ContextTooLong("too long")
    group = BaseExceptionGroup("a", [ValueError(), BaseExceptionGroup("b", [KeyError(), wanted])])

    assert first_error(group) is wanted
    assert first_error(BaseExceptionGroup("c", [ValueError()])) is None


@pytest.mark.parametrize(
    "cls",
    [
        getattr(olm.errors, n)
        for n in olm.errors.__all__
        if isinstance(getattr(olm.errors, n), type)
    ],
)
def test_every_error_has_a_status_a_client_can_use(cls: type[OlmError]) -> None:
    """4xx or 5xx, nothing else."""
    assert 400 <= cls("x").http_status < 600
