"""Decoding of request bodies: Go's words, Go's leniency, and our limits."""

from __future__ import annotations

import contextlib
import gc
import json
import weakref

import msgspec
import pytest
from hypercorn.typing import ASGIReceiveCallable, ASGIReceiveEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from olm.api import body as body_module
from olm.api import schemas as wire
from olm.api.body import MAX_BODY_BYTES, decode, read_body
from olm.api.errors import BodyTooLarge
from olm.api.gate import Buffer, Gate
from olm.api.gojson import decode_slowly
from olm.errors import InvalidRequest

STRUCT = "Go struct field GenerateRequest"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "missing request body"),
        (b" \n", "missing request body"),
        (b"{", "unexpected EOF"),
        (b'{"model":', "unexpected EOF"),
        (b'{"model":"x', "unexpected EOF"),
        (b'{"model":"x"', "unexpected EOF"),
        (b"nul", "unexpected EOF"),
        (b"{x}", "invalid character 'x' looking for beginning of object key string"),
        (b"{'a':1}", "invalid character '\\'' looking for beginning of object key string"),
        (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        (b'{"a" 1}', "invalid character '1' after object key"),
        (b'{"a":1 "b":2}', "invalid character '\"' after object key:value pair"),
        (b'{"a":[1 2]}', "invalid character '2' after array element"),
        (b'{"a":"[",b}', "invalid character 'b' looking for beginning of object key string"),
        (b"[1,]", "invalid character ']' looking for beginning of value"),
        (b'{"a":tru}', "invalid character '}' in literal true (expecting 'e')"),
        (b'{"a":nan}', "invalid character 'a' in literal null (expecting 'u')"),
        (b'{"a":-x}', "invalid character 'x' in numeric literal"),
        (b'{"a":1.}', "invalid character '}' after decimal point in numeric literal"),
        (b'{"a":1e}', "invalid character '}' in exponent of numeric literal"),
        (b'{"a":01}', "invalid character '1' after object key:value pair"),
        (b'{"a":"\n"}', "invalid character '\\n' in string literal"),
        (b'{"a":"\x01"}', "invalid character '\\x01' in string literal"),
        (b'{"a":"\\x"}', "invalid character 'x' in string escape code"),
        (b'{"a":"\\u12g4"}', "invalid character 'g' in \\u hexadecimal character escape"),
        (b'{"a":NaN}', "invalid character 'N' looking for beginning of value"),
        (b'{"a":-Infinity}', "invalid character 'I' in numeric literal"),
        (b"\xef\xbb\xbf{}", "invalid character 'ï' looking for beginning of value"),
        (b"[]", "json: cannot unmarshal array into Go value of type api.GenerateRequest"),
        (b'"x"', "json: cannot unmarshal string into Go value of type api.GenerateRequest"),
        (b'{"model":5}', f"json: cannot unmarshal number into {STRUCT}.model of type string"),
        (b'{"model":{}}', f"json: cannot unmarshal object into {STRUCT}.model of type string"),
        (b'{"prompt":["x"]}', f"json: cannot unmarshal array into {STRUCT}.prompt of type string"),
        (b'{"raw":"x"}', f"json: cannot unmarshal string into {STRUCT}.raw of type bool"),
        (
            b'{"top_logprobs":1.5}',
            f"json: cannot unmarshal number 1.5 into {STRUCT}.top_logprobs of type int",
        ),
        (
            b'{"top_logprobs":true}',
            f"json: cannot unmarshal bool into {STRUCT}.top_logprobs of type int",
        ),
        (
            b'{"top_logprobs":9223372036854775808}',
            f"json: cannot unmarshal number 9223372036854775808 into {STRUCT}.top_logprobs of type int",
        ),
        (
            b'{"options":5}',
            f"json: cannot unmarshal number into {STRUCT}.options of type map[string]interface {{}}",
        ),
        (
            b'{"images":"x"}',
            f"json: cannot unmarshal string into {STRUCT}.images of type []api.ImageData",
        ),
        (b'{"images":["@@@@"]}', "illegal base64 data at input byte 0"),
        (
            b'{"options":{"temperature":1e400}}',
            "json: cannot unmarshal number 1e400 into Go value of type float64",
        ),
        (b"[" * 100_000, "exceeded max depth"),
        (b'{"format":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "exceeded max depth"),
    ],
)
def test_bad_bodies_get_gos_words(body: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(body, wire.GenerateRequest)

    assert caught.value.message == message
    assert caught.value.http_status == 400


def test_nested_mismatch_names_the_path() -> None:
    body = b'{"messages":[{"role":"user","content":[{"type":"text"}]}]}'

    with pytest.raises(InvalidRequest) as caught:
        decode(body, wire.ChatRequest)

    assert caught.value.message == (
        "json: cannot unmarshal array into Go struct field ChatRequest.messages.content of type string"
    )


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","prompt":null,"images":null,"options":null,"unknown":[1,{"a":2}]}',
        b'{"Model":"m","PROMPT":null}',
        b'{"model":"m"} trailing garbage',
        b' \t{"model":"m"}\n',
        b'{"model":"x","model":"m"}',
    ],
)
def test_go_is_lenient_and_so_are_we(body: bytes) -> None:
    request = decode(body, wire.GenerateRequest)

    assert (request.model, request.prompt) == ("m", None)


def test_a_null_body_is_an_empty_request() -> None:
    assert decode(b"null", wire.GenerateRequest) == wire.GenerateRequest()


def test_broken_unicode_becomes_the_replacement_character() -> None:
    lone = decode(b'{"prompt":"a\\ud800b"}', wire.GenerateRequest)
    raw = decode(b'{"prompt":"a\xffb"}', wire.GenerateRequest)

    assert lone.prompt == raw.prompt == "a\ufffdb"


def test_nulls_in_lists_are_zero_values() -> None:
    request = decode(b'{"messages":[null,{"content":"x"}]}', wire.ChatRequest)

    assert request.messages == [wire.Message(), wire.Message(content="x")]


def test_too_many_values_are_refused_before_they_become_objects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(body_module, "MAX_VALUES", 100)

    with pytest.raises(InvalidRequest, match="too many values"):
        decode(b'{"options":{"a":[' + b"1," * 200 + b"1]}}", wire.GenerateRequest)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31 - 1) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "model": st.text(max_size=10) | st.none(),
            "prompt": st.text(max_size=20) | json_values,
            "context": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3) | json_values,
            "stream": st.booleans() | st.none(),
            "options": st.dictionaries(st.text(max_size=5), json_values, max_size=3) | st.none(),
            "think": json_values,
            "extra": json_values,
        },
    )
)
def test_both_ways_of_decoding_agree(value: dict[str, object]) -> None:
    """What msgspec takes, the slow way takes with the same result; what it refuses, the slow way refuses too."""
    body = json.dumps(value).encode()

    try:
        fast = msgspec.json.decode(body, type=wire.GenerateRequest)
    except msgspec.ValidationError:
        fast = None
    try:
        slow = msgspec.json.decode(
            decode_slowly(body, wire.GenerateRequest), type=wire.GenerateRequest
        )
    except InvalidRequest:
        slow = None

    if fast is not None:
        assert slow == fast
    # the other way round Go is milder: nulls inside of lists


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=60) | st.text(alphabet='{}[]",:\\u123tfn.eE-+ ', max_size=30).map(str.encode)
)
def test_no_bytes_make_it_fail_otherwise(body: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        decode(body, wire.ChatRequest)


async def test_a_body_that_is_too_large_is_freed_with_its_error() -> None:
    """A cycle through the traceback would keep tens of megabytes until the collector runs, which may be hours."""
    piece = bytes(MAX_BODY_BYTES // 4 + 1)

    async def receive() -> ASGIReceiveEvent:
        return {"type": "http.request", "body": piece, "more_body": True}

    gc.disable()
    try:
        kept = await _refused(receive)
        assert kept() is None
    finally:
        gc.enable()


async def _refused(receive: ASGIReceiveCallable) -> weakref.ref[BodyTooLarge]:
    try:
        await read_body(receive, {}, Buffer(Gate()))
    except BodyTooLarge as exc:
        return weakref.ref(exc)
    raise AssertionError("it was taken")
