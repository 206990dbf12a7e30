"""Message types, result types, exits and their words."""

from __future__ import annotations

import pytest

from olm.actors.runtime import (
    Crashed,
    Killed,
    Message,
    Normal,
    RemoteCrash,
    Shutdown,
    StreamMessage,
    describe_exit,
)
from olm.actors.runtime._exits import Died, stopped_error, unwrap_single
from olm.actors.runtime._messages import result_type, wire_name


class Plain(Message[int], frozen=True):
    pass


class Derived(Plain, frozen=True):
    pass


class Later(Message["Plain | None"], frozen=True):
    pass


class Items(StreamMessage[list[str]], frozen=True):
    pass


class Open(Message, frozen=True):  # type: ignore[type-arg]
    pass


def test_the_result_type_is_the_type_argument() -> None:
    assert result_type(Plain) is int
    assert result_type(Derived) is int
    assert result_type(Later) == Plain | None
    assert result_type(Items) == list[str]


def test_a_message_without_a_type_argument_cannot_cross() -> None:
    with pytest.raises(TypeError, match="Open does not say what it answers"):
        result_type(Open)


def test_the_wire_name_is_module_and_class() -> None:
    assert wire_name(Plain).endswith("test_messages:Plain")


@pytest.mark.parametrize(
    ("exit_", "words"),
    [
        (Normal(), "finished"),
        (Shutdown(), "was stopped"),
        (Shutdown("unloaded"), "was stopped: unloaded"),
        (Crashed(ValueError("x")), "crashed: ValueError: x"),
        (Crashed(ValueError()), "crashed: ValueError()"),
        (Crashed(Died("its loop was silent")), "crashed: its loop was silent"),
        (Crashed(RemoteCrash("KeyError", "'a'", "..."), "long report"), "crashed: KeyError: 'a'"),
        (Crashed(RemoteCrash("KeyError", "", "...")), "crashed: KeyError"),
        (Killed("SIGKILL"), "was killed by SIGKILL"),
        (Killed("SIGKILL", "a\n b \n\n"), "was killed by SIGKILL; its last words: b"),
        (
            Killed("SIGSEGV", "a\nFatal Python error: Segmentation fault\nThread\n"),
            "was killed by SIGSEGV; its last words: Fatal Python error: Segmentation fault",
        ),
    ],
)
def test_an_exit_is_described_in_a_few_words(exit_: object, words: str) -> None:
    assert describe_exit(exit_) == words  # type: ignore[arg-type]


def test_the_error_for_callers_carries_who_how_and_why() -> None:
    cause = ValueError("x")
    error = stopped_error("a", Crashed(cause))
    assert error.__cause__ is cause
    assert error.details == {"actor": "a", "exit": "crashed"}
    assert "is not running" in str(stopped_error("a", None))


def test_groups_of_one_are_unwrapped() -> None:
    inner = ValueError("x")
    assert unwrap_single(ExceptionGroup("a", [ExceptionGroup("b", [inner])])) is inner
    pair = ExceptionGroup("a", [inner, KeyError()])
    assert unwrap_single(pair) is pair
