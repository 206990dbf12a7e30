"""Fuzz the readers of checkpoints: headers built from the wrong parts, streams of opcodes, and real files bent."""

from __future__ import annotations

import json
import pickle
import struct

from hypothesis import example, given, settings
from hypothesis import strategies as st

from checkpoint.made import DATA, global_, safetensors_of, short, tensor, torch_zip
from fuzz.bending import bent
from fuzz.targets import TARGETS
from olm.checkpoint import DTYPES
from olm.checkpoint.torch_values import NAMES

SIZES = st.sampled_from([0, 1, 2, 3, 4, 6, 8, 12, 16, 1 << 20, (1 << 63) - 1, 1 << 63, 1 << 64, -1])
SMALL = st.sampled_from([0, 1, 2, 3, 4])
ODD: st.SearchStrategy[object] = st.sampled_from([None, True, 1.5, "x", [], {}, [[]], "F32"])
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*DTYPES, "U16", "C64", "F4", ""]) | ODD,
        "shape": st.lists(SMALL, max_size=3) | st.lists(SIZES, max_size=3) | ODD,
        "data_offsets": st.lists(SIZES, min_size=2, max_size=2) | st.lists(SIZES, max_size=3) | ODD,
    },
    optional={"more": ODD},
)
NAMES_OF_TENSORS = st.sampled_from(["a", "b", "c", "__metadata__", "", "a\nb", "\ud800", "é"])


@settings(max_examples=150)
@given(
    header=st.dictionaries(NAMES_OF_TENSORS, ENTRIES | ODD, max_size=4) | ODD,
    data=st.binary(max_size=24),
    cut=st.integers(0, 8),
)
def test_headers_of_wrong_parts(header: object, data: bytes, cut: int) -> None:
    whole = safetensors_of(json.dumps(header).encode(), data)

    TARGETS["safetensors"](whole[: len(whole) - cut])


@settings(max_examples=50)
@given(
    shapes=st.lists(
        st.tuples(st.sampled_from(list(DTYPES)), st.lists(st.integers(0, 5), max_size=4)),
        min_size=1,
        max_size=5,
    ),
    shift=st.sampled_from([0, 0, 0, 1, -1]),
    pad=st.integers(0, 9),
)
def test_headers_that_are_nearly_right(
    shapes: list[tuple[str, list[int]]], shift: int, pad: int
) -> None:
    header, at = {}, 0
    for i, (dtype, shape) in enumerate(shapes):
        end = at + DTYPES[dtype].itemsize
        for n in shape:
            end = at + (end - at) * n
        header[f"t{i}"] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    raw = json.dumps(header).encode() + b" " * pad

    TARGETS["safetensors"](safetensors_of(raw, bytes(max(at + shift, 0))))


SAFE = safetensors_of({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8))


@settings(max_examples=80)
@given(bent(SAFE))
def test_bent_safetensors(data: bytes) -> None:
    TARGETS["safetensors"](data)


@settings(max_examples=50)
@given(st.text('{}[]:,"\\ u0en-+1.\n', max_size=60) | st.text(max_size=20))
def test_json_of_any_characters(text: str) -> None:
    TARGETS["jsons"](text.encode(errors="surrogatepass"))


# --- pickles

HOSTILE = ["os.system", "builtins.eval", "torch.load", "numpy.core.multiarray.scalar", ".", "a.b.c"]
U8, U32 = st.integers(0, 255), st.sampled_from([0, 1, 2, 3, 40, 1 << 31, (1 << 32) - 1])
BARE = [bytes([n]) for n in b"().NQRabetus]}" if n] + [bytes([n]) for n in range(0x80, 0x9A)]
OPCODES = st.one_of(
    st.sampled_from(BARE),
    st.sampled_from([b"h\0", b"h\1", b"q\0", b"q\1", b"\x94", b"(", b")", b"t", b"R", b"u", b"s"]),
    st.sampled_from([*NAMES, *HOSTILE]).map(global_),
    st.sampled_from(["storage", "0", "1", "cpu", "state_dict", "model", "w", ""]).map(short),
    st.builds(lambda n: b"K" + bytes([n]), U8),
    st.builds(lambda n: b"J" + struct.pack("<I", n), U32),
    st.builds(lambda n: b"\x8a\x08" + struct.pack("<Q", n << 32 | n), U32),
    st.builds(
        lambda code, n: code + struct.pack("<I", n), st.sampled_from([b"X", b"B", b"r", b"j"]), U32
    ),
    st.builds(
        lambda shape, strides, offset: tensor(shape, strides, offset=offset),
        st.lists(SMALL, max_size=3),
        st.lists(SMALL, max_size=3),
        SMALL,
    ),
    st.binary(max_size=4),
)
STREAMS = st.lists(OPCODES, max_size=30).map(lambda parts: b"\x80\x02" + b"".join(parts) + b".")
TORCH_FILES = [(DATA / name).read_bytes() for name in ("zip.bin", "newer.bin", "wrapped.pth")]
LEGACY = (DATA / "legacy.bin").read_bytes()


@settings(max_examples=250)
@given(STREAMS)
def test_streams_of_opcodes(data: bytes) -> None:
    TARGETS["pickles"](data)


@settings(max_examples=70)
@given(
    names=st.lists(st.sampled_from(["w", "x", "state_dict", "model"]), max_size=3, unique=True),
    shapes=st.lists(st.lists(st.tuples(SMALL, SMALL), max_size=3), min_size=3, max_size=3),
    offset=st.integers(0, 8),
    n_bytes=st.integers(0, 64),
)
def test_windows_of_a_storage(
    names: list[str], shapes: list[list[tuple[int, int]]], offset: int, n_bytes: int
) -> None:
    tensors = {
        name: tensor([n for n, _ in shape], [step for _, step in shape], offset=offset)
        for name, shape in zip(names, shapes, strict=False)
    }

    TARGETS["torch_files"](torch_zip(tensors, {"0": bytes(n_bytes)}))


@settings(max_examples=70)
@given(STREAMS)
def test_streams_of_opcodes_in_an_archive(data: bytes) -> None:
    TARGETS["torch_files"](torch_zip(data, {"0": bytes(64), "1": bytes(7)}))


@settings(max_examples=80)
@given(st.sampled_from(TORCH_FILES).flatmap(bent))
def test_bent_archives(data: bytes) -> None:
    TARGETS["torch_files"](data)


@settings(max_examples=70)
@given(bent(TORCH_FILES[0][-1800:]))
def test_bent_directories(tail: bytes) -> None:
    TARGETS["zip_directories"](TORCH_FILES[0][:-1800] + tail)


@settings(max_examples=80)
@given(bent(LEGACY))
@example(pickle.dumps(0x1950A86A20F9469CFC6C, 2) * 9)
def test_bent_legacy_files(data: bytes) -> None:
    TARGETS["torch_files"](data)
    TARGETS["pickles"](data)
