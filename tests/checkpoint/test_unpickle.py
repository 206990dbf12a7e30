"""The pickle machine: it reads what Python and torch write, and runs nothing of what anybody else writes."""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpoint.conftest import MapBytes
from checkpoint.made import global_, hostile_pickles, short
from olm.checkpoint.mapped import MappedFile, Residency, open_regular
from olm.checkpoint.pickle_stream import PickleStream
from olm.checkpoint.torch_values import NAMES, storage_of_id
from olm.checkpoint.unpickle import unpickle
from olm.errors import CheckpointError

Load = Callable[[bytes], object]


@pytest.fixture
def load(map_bytes: MapBytes) -> Load:
    def load_bytes(data: bytes) -> object:
        file = map_bytes("a.bin", data)
        return unpickle(PickleStream(file, 0, file.size_bytes), NAMES, storage_of_id)

    return load_bytes


SCALARS = (
    st.none() | st.booleans() | st.integers(-(1 << 900), 1 << 900) | st.floats(allow_nan=False)
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner)
    ),
    max_leaves=40,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=VALUES, protocol=st.sampled_from([2, 3, 4, 5]))
def test_reads_plain_values_as_pickle_does(load: Load, value: object, protocol: int) -> None:
    assert load(pickle.dumps(value, protocol)) == value


def test_reads_what_takes_more_than_a_window(load: Load) -> None:
    value = {"long": "é" * 400_000, "many": [str(i) for i in range(90_000)], "raw": b"\xff" * 300}

    assert load(pickle.dumps(value, 4)) == value


@pytest.mark.parametrize("name", hostile_pickles(""))
def test_a_hostile_pickle_is_refused_by_name_and_nothing_runs(
    load: Load, tmp_path: Path, name: str
) -> None:
    evidence = tmp_path / "it ran"
    data, refused = hostile_pickles(f"touch '{evidence}'")[name]

    with pytest.raises(CheckpointError, match=rf"a\.bin: the pickle refers to {refused}, which is"):
        load(data)
    assert not evidence.exists()


def test_the_hostile_pickles_are_real(tmp_path: Path) -> None:
    """What is refused above would have run: Python's own unpickler shows it."""
    evidence = tmp_path / "it ran"

    pickle.loads(hostile_pickles(f"touch '{evidence}'")["reduce"][0])

    assert evidence.exists()


ORDERED = global_("collections.OrderedDict")
BAD = {
    "empty": (b"", "is truncated"),
    "no end": (b"\x80\x02N", "is truncated: it ends inside its pickle"),
    "short string": (b"X\xff\xff\xff\xffabc", "the pickle is larger|is truncated"),
    "no stack": (b".", "its stack is empty"),
    "protocol 0": (b"I1\n.", "uses the opcode INT"),
    "protocol 9": (b"\x80\x09.", "has the protocol 9"),
    "unknown opcode": (b"\xff.", "uses the opcode 0xff"),
    "extension": (b"\x82\x01.", "uses the opcode EXT1"),
    "buffer": (b"\x97.", "uses the opcode NEXT_BUFFER"),
    "text id": (b"Pos.system\n.", "uses the opcode PERSID"),
    "known class by INST": (b"(icollections\nOrderedDict\n.", "uses the opcode INST"),
    "mark is missing": (b"Nt.", "a mark is missing"),
    "below the mark": (b"N(\x85.", "its stack is empty"),
    "not a list": (b"N(Ne.", "appends to what is not a list"),
    "not a dict": (b"](NNu.", "sets items of what is not a dictionary"),
    "odd items": (b"}(Nu.", "sets items"),
    "key": (b"}()Nu.", "a dictionary key of the kind tuple"),
    "list as key": (b"}(]Nu.", "a dictionary key of the kind list"),
    "memo": (b"h\x05.", "it recalls 5, which it never stored"),
    "long memo": (b"j\xff\xff\xff\xff.", "it recalls 4294967295"),
    "not UTF-8": (b"U\x01\xff.", "text that is not UTF-8"),
    "endless name": (b"c" + b"a" * 600, "a name that does not end"),
    "unprintable name": (b"ca\x1b[2J\nb\n.", r"refers to 'a\\x1b\[2J\.b'"),
    "numbers as a name": (b"K\x01K\x02\x93.", "names a global that has no name"),
    "calls a string": (short("x") + b")R.", "calls what cannot be called"),
    "calls a class": (global_("torch.Tensor") + b")R.", "calls what cannot be called"),
    "calls without tuple": (ORDERED + b"NR.", "calls what cannot be called"),
    "builds a list": (b"]}b.", "sets attributes of what has none"),
    "filled": (ORDERED + b"]\x85R.", "an OrderedDict that is given its contents"),
    "persistent id": (b"NQ.", "a persistent id that is no storage"),
    "module id": (b"(" + short("module") + b"NNNtQ.", "a persistent id that is no storage"),
    "tensor of nothing": (
        global_("torch._utils._rebuild_tensor_v2") + b")R.",
        "_rebuild_tensor with other arguments",
    ),
    "parameter of nothing": (
        global_("torch._utils._rebuild_parameter") + b"N\x85R.",
        "_rebuild_parameter with other arguments",
    ),
    "typed around a call": (
        global_("torch._tensor._rebuild_from_type_v2")
        + b"("
        + ORDERED
        + global_("torch.Tensor")
        + b")}tR.",
        "_rebuild_from_type_v2 with other arguments",
    ),
    "typed around itself": (
        global_("torch._tensor._rebuild_from_type_v2")
        + b"q\0(h\0"
        + global_("torch.Tensor")
        + b")}tR.",
        "_rebuild_from_type_v2 with other arguments",
    ),
    "long size": (global_("torch.Size") + b"(" + b"K\x01" * 99 + b"t\x85R.", "of 99 dimensions"),
    "negative size": (global_("torch.Size") + b"J\xff\xff\xff\xff\x85\x85R.", "impossible shape"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_damaged_pickle_is_an_error(load: Load, case: str) -> None:
    data, message = BAD[case]

    with pytest.raises(CheckpointError, match=message) as caught:
        load(data)
    assert caught.value.message.startswith("a.bin: ")


def test_a_value_may_contain_itself(load: Load) -> None:
    value = load(b"}q\0" + short("self") + b"h\0s.")

    assert isinstance(value, dict)
    assert value["self"] is value


def test_attributes_of_an_ordered_dict_are_left_out(load: Load) -> None:
    assert load(ORDERED + b")R" + short("k") + b"K\x01s}" + short("_metadata") + b"Nsb.") == {
        "k": 1
    }


@pytest.mark.parametrize("opcode", [b"}", b"("])
def test_the_number_of_opcodes_is_bounded(
    load: Load, monkeypatch: pytest.MonkeyPatch, opcode: bytes
) -> None:
    monkeypatch.setattr("olm.checkpoint.unpickle._MAX_OPCODES", 1000)

    assert load(opcode.replace(b"(", b"N") * 999 + b".") in ({}, None)
    with pytest.raises(CheckpointError, match="has more than 1000 opcodes"):
        load(opcode * 1000 + b".")


def test_the_size_is_bounded_before_anything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"B" + struct.pack("<I", 0xFFFFFFFF))
    os.truncate(path, 8 << 30)
    with closing(MappedFile(open_regular(path, path), path, Residency())) as file:
        stream = PickleStream(file, 0, file.size_bytes)

        with pytest.raises(CheckpointError, match="the pickle is larger than 64 MiB"):
            unpickle(stream, NAMES)
