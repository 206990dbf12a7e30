"""An interpreter for pickles that holds no Python: the opcodes that torch writes, and a table of names it may meet.

`pickle.Unpickler` with a filter on its imports would still build any structure a file asks for, with the costs it asks
for, and hand out live callables. Here a global is looked up in a table before anything else happens, calls go to
functions of that table, and time and memory are bounded by the number of opcodes: the largest pickle that passes takes
some seconds and some 400 MB. What the names mean is in `torch_values`.

The opcodes are described in CPython's `pickletools.py`; protocols 2 to 5, less what torch never needs.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from olm.checkpoint.pickle_stream import PickleStream
from olm.errors import CheckpointError

__all__ = ["Function", "Global", "unpickle"]

_MAX_OPCODES: Final = 1 << 22  # a tensor takes some 35
_I32: Final = struct.Struct("<i")
_U16: Final = struct.Struct("<H")
_U32: Final = struct.Struct("<I")
_F64: Final = struct.Struct(">d")
_NAMES: Final = {ord(info.code): info.name for info in pickletools.opcodes}

Persistent = Callable[[object], object]
"""Makes a value of a persistent id, or raises CheckpointError."""


@attrs.frozen
class Function:
    """A callable of the table. It gets arguments of any kind, checks them, and raises CheckpointError or ValueError."""

    call: Callable[[Sequence[object]], object]


Global = object
"""What a name stands for: a `Function`, or a value that is only passed on."""


def unpickle(
    stream: PickleStream, names: Mapping[str, Global], persistent: Persistent | None = None
) -> object:
    """Run one pickle; afterwards the stream stands behind it.

    Args:
        stream: where it is.
        names: the globals it may refer to, `module.name`.
        persistent: what becomes of persistent ids; None: there must be none.

    Returns:
        None, bool, int, float, str, bytes, tuple, list, dict with keys of these but the last three, or what the
        table's functions return. It may contain itself: never print, hash, compare or walk it without a bound.

    Raises:
        CheckpointError: damaged, too large, or asks for what is not in the table; names it.
    """
    return _Machine(stream, names, persistent).run()


class _Machine:
    """The stack machine. A method is an opcode and has its name in lower case."""

    def __init__(
        self, stream: PickleStream, names: Mapping[str, Global], persistent: Persistent | None
    ) -> None:
        self._stream = stream
        self._names = names
        self._persistent = persistent
        self._stack: list[object] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}

    def run(self) -> object:
        """Execute until STOP; returns what is left on the stack."""
        take = self._stream.take
        try:
            for _ in range(_MAX_OPCODES):
                code = take(1)[0]
                if code == _STOP:
                    return self._pop()
                operation = _OPERATIONS.get(code)
                if operation is None:
                    raise self._bad(
                        f"uses the opcode {_NAMES.get(code, hex(code))}, which weights do not need"
                    )
                operation(self)
        except (ValueError, OverflowError) as exc:
            raise self._bad(f"is damaged: {exc}") from exc
        raise self._bad(f"has more than {_MAX_OPCODES} opcodes")

    def _bad(self, why: str) -> CheckpointError:
        return CheckpointError(f"{self._stream.what}: the pickle {why}")

    def _pop(self) -> object:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise self._bad("is damaged: its stack is empty")
        return self._stack.pop()

    def _pop_mark(self) -> list[object]:
        if not self._marks:
            raise self._bad("is damaged: a mark is missing")
        at = self._marks.pop()
        items = self._stack[at:]
        del self._stack[at:]
        return items

    def _push(self, value: object) -> None:
        self._stack.append(value)

    # --- values

    def none(self) -> None:
        self._push(None)

    def newtrue(self) -> None:
        self._push(True)

    def newfalse(self) -> None:
        self._push(False)

    def binint(self) -> None:
        self._push(_I32.unpack(self._stream.take(4))[0])

    def binint1(self) -> None:
        self._push(self._stream.take(1)[0])

    def binint2(self) -> None:
        self._push(_U16.unpack(self._stream.take(2))[0])

    def long1(self) -> None:
        self._push(int.from_bytes(self._short(), "little", signed=True))

    def binfloat(self) -> None:
        self._push(_F64.unpack(self._stream.take(8))[0])

    def binunicode(self) -> None:
        self._push(self._stream.text(self._long()))

    def short_binunicode(self) -> None:
        self._push(self._stream.text(self._short()))

    def binbytes(self) -> None:
        self._push(self._long())

    def short_binbytes(self) -> None:
        self._push(self._short())

    def _short(self) -> bytes:
        return self._stream.take(self._stream.take(1)[0])

    def _long(self) -> bytes:
        return self._stream.take(_U32.unpack(self._stream.take(4))[0])

    # --- containers

    def mark(self) -> None:
        self._marks.append(len(self._stack))

    def empty_tuple(self) -> None:
        self._push(())

    def tuple(self) -> None:
        self._push(tuple(self._pop_mark()))

    def tuple1(self) -> None:
        self._push((self._pop(),))

    def tuple2(self) -> None:
        second = self._pop()
        self._push((self._pop(), second))

    def tuple3(self) -> None:
        third, second = self._pop(), self._pop()
        self._push((self._pop(), second, third))

    def empty_list(self) -> None:
        self._push([])

    def append(self) -> None:
        self._extend([self._pop()])

    def appends(self) -> None:
        self._extend(self._pop_mark())

    def _extend(self, items: Sequence[object]) -> None:
        target = self._pop()
        if not isinstance(target, list):
            raise self._bad("is damaged: it appends to what is not a list")
        target.extend(items)
        self._push(target)

    def empty_dict(self) -> None:
        self._push({})

    def setitem(self) -> None:
        value = self._pop()
        self._set([self._pop(), value])

    def setitems(self) -> None:
        self._set(self._pop_mark())

    def _set(self, items: Sequence[object]) -> None:
        target = self._pop()
        if not isinstance(target, dict) or len(items) % 2:
            raise self._bad("is damaged: it sets items of what is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing a tuple of tuples can take for ever: no key of weights is one.
            if not isinstance(key, str | int | float | None):
                raise self._bad(f"has a dictionary key of the kind {type(key).__name__}")
            target[key] = value
        self._push(target)

    # --- memo

    def binput(self) -> None:
        self._remember(self._stream.take(1)[0])

    def long_binput(self) -> None:
        self._remember(_U32.unpack(self._stream.take(4))[0])

    def memoize(self) -> None:
        self._remember(len(self._memo))

    def _remember(self, key: int) -> None:
        value = self._pop()
        self._memo[key] = value
        self._push(value)

    def binget(self) -> None:
        self._recall(self._stream.take(1)[0])

    def long_binget(self) -> None:
        self._recall(_U32.unpack(self._stream.take(4))[0])

    def _recall(self, key: int) -> None:
        if key not in self._memo:
            raise self._bad(f"is damaged: it recalls {key}, which it never stored")
        self._push(self._memo[key])

    # --- names and calls

    def proto(self) -> None:
        version = self._stream.take(1)[0]
        if not 2 <= version <= 5:
            raise self._bad(f"has the protocol {version}, only 2 to 5 are supported")

    def frame(self) -> None:
        self._stream.take(8)  # a hint of how much to read at once

    def global_(self) -> None:
        module = self._stream.line()
        self._push(self._find(module, self._stream.line()))

    def inst(self) -> None:
        module = self._stream.line()
        name = self._stream.line()
        self._find(module, name)
        raise self._bad("uses the opcode INST, which weights do not need")

    def stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise self._bad("is damaged: it names a global that has no name")
        self._push(self._find(module, name))

    def _find(self, module: str, name: str) -> Global:
        full = f"{module}.{name}"
        if full not in self._names:
            shown = full[:200] if full.isprintable() else ascii(full[:200])
            raise self._bad(
                f"refers to {shown}, which is refused: weights do not need it, and it was not run"
            )
        return self._names[full]

    def reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Function) or not isinstance(arguments, tuple):
            raise self._bad("calls what cannot be called")
        self._push(function.call(arguments))

    def build(self) -> None:
        self._pop()  # attributes, like an OrderedDict's `_metadata`: nothing that weights need
        target = self._pop()
        if not isinstance(target, dict):
            raise self._bad("sets attributes of what has none")
        self._push(target)

    def binpersid(self) -> None:
        if self._persistent is None:
            raise self._bad("has a persistent id where none can be")
        self._push(self._persistent(self._pop()))


_STOP: Final = ord(".")
_OPERATIONS: Final[Mapping[int, Callable[[_Machine], None]]] = {
    0x80: _Machine.proto,
    0x95: _Machine.frame,
    ord("("): _Machine.mark,
    ord("N"): _Machine.none,
    0x88: _Machine.newtrue,
    0x89: _Machine.newfalse,
    ord("J"): _Machine.binint,
    ord("K"): _Machine.binint1,
    ord("M"): _Machine.binint2,
    0x8A: _Machine.long1,
    ord("G"): _Machine.binfloat,
    ord("X"): _Machine.binunicode,
    0x8C: _Machine.short_binunicode,
    ord("T"): _Machine.binunicode,  # BINSTRING and SHORT_BINSTRING: Python 2's names of tensors
    ord("U"): _Machine.short_binunicode,
    ord("B"): _Machine.binbytes,
    ord("C"): _Machine.short_binbytes,
    ord(")"): _Machine.empty_tuple,
    ord("t"): _Machine.tuple,
    0x85: _Machine.tuple1,
    0x86: _Machine.tuple2,
    0x87: _Machine.tuple3,
    ord("]"): _Machine.empty_list,
    ord("a"): _Machine.append,
    ord("e"): _Machine.appends,
    ord("}"): _Machine.empty_dict,
    ord("s"): _Machine.setitem,
    ord("u"): _Machine.setitems,
    ord("q"): _Machine.binput,
    ord("r"): _Machine.long_binput,
    0x94: _Machine.memoize,
    ord("h"): _Machine.binget,
    ord("j"): _Machine.long_binget,
    ord("c"): _Machine.global_,
    ord("i"): _Machine.inst,
    0x93: _Machine.stack_global,
    ord("R"): _Machine.reduce,
    0x81: _Machine.reduce,  # NEWOBJ: a class and its arguments
    ord("b"): _Machine.build,
    ord("Q"): _Machine.binpersid,
}
