"""Names and digests: what is accepted, how it is shown, and that no text leads out of the store."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olm.errors import InvalidName
from olm.store.blobs import BlobStore
from olm.store.manifests import ManifestStore
from olm.store.names import Digest, ModelName

DEFAULTS = ("registry.ollama.ai", "library", "latest")
WORD = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"
NAMES = st.builds(
    ModelName,
    st.one_of(
        st.just("registry.ollama.ai"),
        st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,20}", fullmatch=True),
    ),
    st.one_of(
        st.just("library"), st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,20}", fullmatch=True)
    ),
    st.from_regex(WORD, fullmatch=True),
    st.one_of(st.just("latest"), st.from_regex(WORD, fullmatch=True)),
)


@pytest.mark.parametrize(
    ("text", "parts", "shortest"),
    [
        ("llama3.2", ("registry.ollama.ai", "library", "llama3.2", "latest"), "llama3.2:latest"),
        ("llama3.2:1b", ("registry.ollama.ai", "library", "llama3.2", "1b"), "llama3.2:1b"),
        ("me/mine", ("registry.ollama.ai", "me", "mine", "latest"), "me/mine:latest"),
        ("library/x", ("registry.ollama.ai", "library", "x", "latest"), "x:latest"),
        ("host/ns/m:t", ("host", "ns", "m", "t"), "host/ns/m:t"),
        (
            "localhost:5000/ns/m",
            ("localhost:5000", "ns", "m", "latest"),
            "localhost:5000/ns/m:latest",
        ),
        ("hf.co/U/R-GGUF:Q4_K_M", ("hf.co", "U", "R-GGUF", "Q4_K_M"), "hf.co/U/R-GGUF:Q4_K_M"),
        ("https://example.com/ns/m:t", ("example.com", "ns", "m", "t"), "example.com/ns/m:t"),
        (
            "http://example.com:80/ns/m",
            ("example.com:80", "ns", "m", "latest"),
            "example.com:80/ns/m:latest",
        ),
        (
            "Registry.Ollama.AI/Library/X",
            ("Registry.Ollama.AI", "Library", "X", "latest"),
            "X:latest",
        ),
        ("_x", ("registry.ollama.ai", "library", "_x", "latest"), "_x:latest"),
    ],
)
def test_parse_and_display(text: str, parts: tuple[str, ...], shortest: str) -> None:
    name = ModelName.parse(text)

    assert name.parts == parts
    assert name.shortest == shortest


def test_the_scheme_is_kept_beside_the_name() -> None:
    plain, secure = ModelName.parse("http://h/n/m"), ModelName.parse("h/n/m")

    assert (plain.scheme, secure.scheme) == ("http", "https")
    assert plain == secure


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "x:", ":x", "/x", "x/", "a//b", "ns/", "h/ns/", "/", "a/b/c/d", ".", "..", "../x",
        "x/../y", ".x", "-x", "x:.t", "x:-t", "n.s/x", "a b", "x\n", "x\0", "x:t\n", "é", "x@sha256:00",
        "h/n/m@sha256", "x" * 81, "n" * 81 + "/x", "x:" + "t" * 81, "h" * 351 + "/n/m", "%2e%2e/x", "x\\y", "http://",
        "https:///x", "C:\\x",
    ],
)  # fmt: skip
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(InvalidName, match=r"^invalid model name$"):
        ModelName.parse(text)


@given(NAMES)
def test_a_name_survives_being_shown(name: ModelName) -> None:
    again = ModelName.parse(str(name))

    assert again == name
    assert ModelName.parse(name.shortest).same_as(name)


@given(st.text(max_size=60))
def test_no_text_leads_out_of_the_store(text: str) -> None:
    root = Path("/store/manifests")
    try:
        name = ModelName.parse(text)
    except InvalidName:
        return
    path = ManifestStore(root).path(name)

    assert path.is_relative_to(root)
    assert len(path.relative_to(root).parts) == 4
    assert ".." not in path.parts
    assert not any(part.startswith(".") for part in path.relative_to(root).parts)


@given(st.one_of(st.text(max_size=80), st.from_regex(r"sha256[:-][0-9a-fA-F/.]{60,66}")))
def test_no_digest_leads_out_of_the_store(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except InvalidName:
        return
    path = BlobStore(Path("/store/blobs")).path(digest)

    assert path.parent == Path("/store/blobs")
    assert str(digest) == text
    assert len(path.name) == 71


@pytest.mark.parametrize(
    "text",
    ["", "sha256:", "sha256:" + "0" * 63, "sha256:" + "0" * 65, "sha256:" + "A" * 64, "sha512:" + "0" * 64,
     "sha256-" + "0" * 64, "sha256:" + "0" * 63 + "/", "sha256:" + "0" * 64 + "\n", "sha256:../" + "0" * 61],
)  # fmt: skip
def test_what_is_no_digest(text: str) -> None:
    with pytest.raises(InvalidName, match=r"^invalid digest format$"):
        Digest.parse(text)


def test_each_part_takes_the_stored_case_an_exact_match_first() -> None:
    stored = [ModelName.parse(t) for t in ("HF.co/Me/Model:Q8", "hf.co/ME/other:x", "mOdel:q8")]

    assert str(ModelName.parse("hf.CO/me/MODEL:q8").in_stored_case(stored)) == "HF.co/ME/Model:q8"
    assert str(ModelName.parse("hf.co/x/y:z").in_stored_case(stored)) == "hf.co/x/y:z"
