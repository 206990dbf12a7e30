"""Fuzz what the daemon itself reads of other people's: GGUF headers and Modelfiles."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.bending import bent
from fuzz.targets import TARGETS
from store.gguf_files import gguf, model, pair, tensor, text

COUNTS = st.sampled_from([0, 1, 2, 3, 255, 1 << 13, 1 << 20, (1 << 31) - 1, 1 << 32, (1 << 64) - 1])
KEYS = st.sampled_from(
    [
        "general.architecture",
        "general.alignment",
        "llama.block_count",
        "llama.context_length",
        "a",
        "",
    ]
) | st.binary(max_size=6)
TYPES = st.integers(0, 14) | st.sampled_from([255, 1 << 31])
WHOLE = model(a__flag=True, a__float=1.5, a__text="hello", a__list=[1, 2, 3], a__names=["x", "é"])


@st.composite
def _raw_pairs(draw: st.DrawFn) -> bytes:
    """A key, any type, and bytes that may be its value."""
    head = text(draw(KEYS)) + struct.pack("<I", draw(TYPES))
    if draw(st.booleans()):
        head += struct.pack("<IQ", draw(TYPES), draw(COUNTS))
    return head + draw(st.binary(max_size=24))


PAIRS = _raw_pairs() | st.builds(
    pair,
    KEYS,
    st.booleans()
    | st.integers(0, (1 << 32) - 1)
    | st.floats(width=32)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
    | st.lists(st.integers(0, 99), max_size=4)
    | st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), max_size=4),
)
TENSORS = st.builds(
    tensor,
    st.sampled_from(["a", "b", "token_embd.weight", "x" * 64]),
    st.lists(st.sampled_from([0, 1, 4, 32, 256, 1 << 40, (1 << 64) - 1]), max_size=5).map(tuple),
    st.integers(0, 45),
    st.sampled_from([0, 1, 32, 64, 1 << 40, (1 << 64) - 1]),
)


@settings(max_examples=150)
@given(
    pairs=st.lists(PAIRS, max_size=5),
    tensors=st.lists(TENSORS, max_size=4),
    data=st.sampled_from([0, 31, 32, 4096]),
)
def test_gguf_headers_of_any_parts(pairs: list[bytes], tensors: list[bytes], data: int) -> None:
    TARGETS["gguf_headers"](gguf(pairs, tensors) + bytes(data))


@settings(max_examples=100)
@given(bent(WHOLE))
def test_bent_gguf_headers(data: bytes) -> None:
    TARGETS["gguf_headers"](data)


WORDS = st.sampled_from(
    [
        "FROM",
        "from x",
        "FROM ./a.gguf\n",
        "PARAMETER",
        "PARAMETER temperature 1e999\n",
        'PARAMETER stop "a"\n',
        "PARAMETER num_ctx 99999999999999999999\n",
        "MESSAGE user",
        "MESSAGE",
        "SYSTEM",
        "TEMPLATE",
        "LICENSE",
        "REQUIRES 0.1.2-x+y\n",
        "ADAPTER",
        "DRAFT",
        "RENDERER",
        "PARSER",
        '"""',
        '"',
        "'",
        "#",
        "\\",
        " ",
        "\t",
        "\n",
        "\r",
        "\r\n",
        "\0",
        "\ufeff",
        "\u2028",
        "\x85",
        "é",
        "\U0001f9e0",
        "{{ .System }}",
    ]
)
MODELFILES = st.lists(WORDS | st.text(max_size=3), max_size=25).map("".join)


@settings(max_examples=150)
@given(MODELFILES, st.sampled_from(["", "FROM x\n"]))
def test_modelfiles_of_any_words(body: str, head: str) -> None:
    TARGETS["modelfiles"]((head + body).encode(errors="surrogatepass"))


@settings(max_examples=50)
@given(
    MODELFILES, st.sampled_from(["utf-16", "utf-16-le", "utf-8-sig", "latin-1"]), st.integers(0, 3)
)
def test_modelfiles_in_any_encoding(body: str, encoding: str, cut: int) -> None:
    raw = ("FROM x\n" + body).encode(encoding, errors="replace")

    TARGETS["modelfiles"](raw[: len(raw) - cut])


@settings(max_examples=50)
@given(bent(b'FROM x\nPARAMETER stop "a"\nTEMPLATE """{{ .Prompt }}\n"""\nMESSAGE user "hi"\n'))
def test_bent_modelfiles(data: bytes) -> None:
    TARGETS["modelfiles"](data)
