"""Vocabularies out of tokenizer files: as llama.cpp's converter writes them, whole, and with clear errors for broken files."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from tokenizer_kit import BYTES, FIXTURES, byte_level, read_folder, write_files

from olm.checkpoint import open_checkpoint
from olm.convert.metadata import Metadata
from olm.convert.tokenizers import read_vocab
from olm.convert.tokenizers.result import ReadVocab
from olm.convert.vocab import TokenType, write_vocab
from olm.errors import CheckpointError

# Digests of what llama.cpp's converter (of the pinned tree) wrote for the fixtures: little-endian numbers, texts behind their length.
EXPECTED: Mapping[str, Mapping[str, str]] = json.loads(
    (Path(__file__).parent / "data" / "vocabs.json").read_text()
)
N_BYTES = len(BYTES)


def digest(values: Sequence[object], form: str) -> str:
    if form == "texts":
        raws = [v if isinstance(v, bytes) else str(v).encode() for v in values]
        data = b"".join(struct.pack("<Q", len(raw)) + raw for raw in raws)
    else:
        data = b"".join(struct.pack(form, value) for value in values)
    return hashlib.sha256(data).hexdigest()[:16]


def fixture(name: str) -> ReadVocab:
    with open_checkpoint(FIXTURES / name) as checkpoint:
        text = checkpoint.config.get("text_config", checkpoint.config)
        assert isinstance(text, dict)
        vocab = read_vocab(checkpoint, vocab_size=text["vocab_size"])
    assert vocab is not None
    return vocab


@pytest.mark.parametrize("name", EXPECTED)
def test_fixtures_become_what_llama_cpp_writes(name: str) -> None:
    """Tokens, types, scores and merges are the same, one by one."""
    vocab = fixture(name)
    found = {
        "tokens": digest(vocab.tokens, "texts"),
        "token_type": digest(vocab.types, "<i"),
        "scores": digest(vocab.scores or (), "<f"),
        "merges": digest(vocab.merges or (), "texts"),
    }

    assert {key: found[key] for key in EXPECTED[name]} == EXPECTED[name]


@pytest.mark.parametrize("name", EXPECTED)
def test_fixtures_keys_are_llama_cpps(name: str) -> None:
    """Special tokens, flags and names are the same; several end tokens come on top."""
    # Names of pre-tokenizers that llama.cpp treats alike, and a key of BERT that is not written yet.
    alike = {"refact": "starcoder"}
    left_out = {"tokenizer.ggml.normalizer.lowercase", "tokenizer.ggml.eos_token_ids"}
    reference = json.loads((FIXTURES / name / "reference.json").read_text("utf-8"))
    wanted = {k: v for k, v in reference["gguf"]["kv"].items() if k.startswith("tokenizer.ggml.")}
    wanted["tokenizer.ggml.pre"] = alike.get(
        wanted["tokenizer.ggml.pre"], wanted["tokenizer.ggml.pre"]
    )
    meta = Metadata("x")
    write_vocab(meta, fixture(name))
    found = {
        key: pair.value
        for key, pair in meta
        if key.startswith("tokenizer.ggml.")
        and not key.endswith((".tokens", ".token_type", ".scores", ".merges"))
    }

    assert {k: v for k, v in found.items() if k not in left_out} == {
        k: v for k, v in wanted.items() if k not in left_out
    }


# -- byte-level BPE ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("merges", "written"),
    [
        (["a b", "ab c"], ["a b", "ab c"]),
        ([["a", "b"], ["ab", "c"]], ["a b", "ab c"]),
        ([["a", " b"]], ["a Ġb"]),
    ],
)
def test_merges_come_in_both_forms(merges: object, written: Sequence[str], tmp_path: Path) -> None:
    """Pairs as text, and as lists, in which a piece may hold a space."""
    write_files(tmp_path, {"tokenizer.json": byte_level(merges=merges)})

    assert read_folder(tmp_path).merges == written


def test_the_vocabulary_is_filled_up_to_the_embedding(tmp_path: Path) -> None:
    """Gaps and the rest become [PAD<id>], unused; a token that is really called so keeps its name to itself."""
    vocab = {text: i for i, text in enumerate(BYTES)} | {f"[PAD{N_BYTES}]": N_BYTES + 1}
    write_files(tmp_path, {"tokenizer.json": byte_level(vocab=vocab)})

    found = read_folder(tmp_path, N_BYTES + 3)

    assert found.tokens[N_BYTES:] == [
        f"[[PAD{N_BYTES}]]",
        f"[PAD{N_BYTES}]",
        f"[PAD{N_BYTES + 2}]",
    ]
    assert found.types[N_BYTES:] == [TokenType.UNUSED, TokenType.NORMAL, TokenType.UNUSED]


def test_added_tokens_have_their_kinds(tmp_path: Path) -> None:
    """Special ones, and those that look so, are CONTROL; others are shown; one beyond the embedding is left out."""
    first = N_BYTES + 2
    added = [
        {"id": first, "content": "<s>", "special": True},
        {"id": first + 1, "content": "<|tool|>", "special": False},
        {"id": first + 2, "content": "<think>", "special": False},
        {"id": first + 3, "content": "<image>", "special": True},
    ]
    write_files(tmp_path, {"tokenizer.json": byte_level(added_tokens=added)})

    found = read_folder(tmp_path, first + 3)

    assert found.tokens[first:] == ["<s>", "<|tool|>", "<think>"]
    assert found.types[first:] == [TokenType.CONTROL, TokenType.CONTROL, TokenType.USER_DEFINED]


def test_no_text_is_there_twice(tmp_path: Path) -> None:
    """An added token that repeats a piece takes its place: llama.cpp aborts on two pieces of one text."""
    added = [{"id": N_BYTES + 2, "content": "ab", "special": True}]
    write_files(tmp_path, {"tokenizer.json": byte_level(added_tokens=added)})

    found = read_folder(tmp_path)

    assert found.tokens[N_BYTES:] == [f"[PAD{N_BYTES}]", "abc", "ab"]
    assert len(set(found.tokens)) == len(found.tokens)


def test_vocab_json_and_merges_txt_do(tmp_path: Path) -> None:
    """Without tokenizer.json, the slow tokenizer's files are read."""
    vocab = {text: i for i, text in enumerate([*BYTES, "ab"])}
    settings = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "ab"}
    files = {"vocab.json": vocab, "merges.txt": "#version: 0.2\na b\n"}
    write_files(tmp_path, {**files, "tokenizer_config.json": settings})

    found = read_folder(tmp_path)

    assert (found.model, found.pre, found.merges) == ("gpt2", "qwen2", ["a b"])
    assert found.special == {"eos": N_BYTES}


# -- SentencePiece -------------------------------------------------------------------------------------------------------


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return bytes([number << 3, value]) if number < 16 else bytes([0xC0, 0x01, value])
    return bytes([number << 3 | 2]) + varint(len(value)) + value


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def piece(text: str, score: float, kind: int = 1) -> bytes:
    raw = text.encode()
    inner = field(1, raw) + bytes([2 << 3 | 5]) + struct.pack("<f", score) + field(3, kind)
    return field(1, inner)


def model_file(*, is_unigram: bool, prefix: bool = True) -> bytes:
    pieces = piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3) + piece("▁a", -1.5)
    normalizer = field(2, b"\4\0\0\0maps") + field(3, int(prefix)) + field(4, 1)
    return pieces + field(2, field(3, 1 if is_unigram else 2)) + field(3, normalizer)


def test_a_model_file_of_unigrams_is_t5(tmp_path: Path) -> None:
    """Scores, types, normalizer and its map are carried over."""
    write_files(tmp_path, {"spiece.model": model_file(is_unigram=True)})

    found = read_folder(tmp_path)

    assert (found.model, found.charsmap) == ("t5", b"\4\0\0\0maps")
    assert (found.add_space_prefix, found.remove_extra_whitespaces) == (True, True)
    assert (found.tokens[3], found.types, found.scores) == ("▁a", [2, 3, 3, 1], [0, 0, 0, -1.5])


@pytest.mark.parametrize(("prefix", "said"), [(True, None), (False, False)])
def test_a_missing_dummy_prefix_is_said(prefix: bool, said: bool | None, tmp_path: Path) -> None:
    """llama.cpp puts a space before every text unless told not to."""
    write_files(tmp_path, {"tokenizer.model": model_file(is_unigram=False, prefix=prefix)})

    found = read_folder(tmp_path)

    assert (found.model, found.add_space_prefix) == ("llama", said)


def test_the_ids_of_xlm_roberta_are_fairseqs(tmp_path: Path) -> None:
    """Four own tokens come first, a mask last."""
    write_files(tmp_path, {"sentencepiece.bpe.model": model_file(is_unigram=True)})

    found = read_folder(tmp_path)

    assert found.tokens == ["<s>", "<pad>", "</s>", "<unk>", "▁a", "<mask>"]
    assert found.types == [3, 3, 3, 2, 1, 3]


def test_unigrams_of_tokenizer_json(tmp_path: Path) -> None:
    """As transformers keeps XLM-RoBERTa and T5."""
    entries = [["<s>", 0.0], ["<unk>", 0.0], ["▁a", -1.5], ["b", -2]]
    normalizer = {
        "type": "Sequence",
        "normalizers": [
            {
                "type": "Precompiled",
                "precompiled_charsmap": base64.b64encode(b"\4\0\0\0m").decode(),
            },
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
        ],
    }
    whole = {
        "model": {"type": "Unigram", "unk_id": 1, "vocab": entries},
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Metaspace", "add_prefix_space": True},
        "added_tokens": [{"id": i, "content": entries[i][0], "special": True} for i in range(2)],
    }
    write_files(tmp_path, {"tokenizer.json": whole})

    found = read_folder(tmp_path)

    assert (found.model, found.types, found.scores) == ("t5", [3, 2, 1, 1], [0, 0, -1.5, -2])
    assert (found.charsmap, found.add_space_prefix) == (b"\4\0\0\0m", True)
    assert found.remove_extra_whitespaces is True


def test_pieces_without_scores_get_the_rank_of_their_merge(tmp_path: Path) -> None:
    """So that llama.cpp joins the pairs in the tokenizer's order."""
    vocab = {"<unk>": 0, "<0x41>": 1, "a": 2, "b": 3, "c": 4, "bc": 5, "ab": 6}
    model = {"type": "BPE", "byte_fallback": True, "unk_token": "<unk>", "vocab": vocab}
    whole = {
        "model": {**model, "merges": ["b c", "a b"]},
        "normalizer": {"type": "Prepend", "prepend": "▁"},
    }
    write_files(tmp_path, {"tokenizer.json": whole})

    found = read_folder(tmp_path)

    assert (found.model, found.add_space_prefix) == ("llama", None)
    assert found.types[:3] == [TokenType.UNKNOWN, TokenType.BYTE, TokenType.NORMAL]
    assert found.scores is not None
    assert found.scores[5] > found.scores[6]


def test_gemma_4_has_a_model_of_its_own(tmp_path: Path) -> None:
    """Merges are kept, and what the chat parser must see is shown."""
    vocab = {"<pad>": 0, "a": 1, "b": 2, "ab": 3, "<|channel>": 4}
    model = {"type": "BPE", "byte_fallback": True, "vocab": vocab, "merges": [["a", "b"]]}
    added = [{"id": 0, "content": "<pad>", "special": True}]
    added += [{"id": 4, "content": "<|channel>", "special": True}]
    whole = {"model": model, "added_tokens": added}
    write_files(tmp_path, {"tokenizer.json": whole, "config.json": {"model_type": "gemma4"}})

    found = read_folder(tmp_path)

    assert (found.model, found.merges, found.types) == ("gemma4", ["a b"], [3, 1, 1, 1, 4])
    assert (found.add_bos, found.add_space_prefix) == (True, False)


# -- WordPiece, ranks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "txt"])
def test_words_are_marked_where_they_begin(form: str, tmp_path: Path) -> None:
    """Continuations lose their mark, words get one, special tokens stay."""
    texts = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "play", "##ing"]
    vocab = {text: i for i, text in enumerate(texts)}
    added = [{"id": i, "content": texts[i], "special": True} for i in range(4)]
    normalizer = {"type": "BertNormalizer", "lowercase": False, "strip_accents": None}
    whole = {"model": {"type": "WordPiece", "vocab": vocab}, "added_tokens": added}
    files: dict[str, object] = {"tokenizer.json": {**whole, "normalizer": normalizer}}
    if form == "txt":
        settings = {"do_lower_case": False}
        files = {"vocab.txt": "\n".join(texts) + "\n", "tokenizer_config.json": settings}
    write_files(tmp_path, {**files, "config.json": {"type_vocab_size": 2}})

    found = read_folder(tmp_path)

    assert (found.model, found.n_token_types, found.lowercase) == ("bert", 2, False)
    assert found.tokens == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁play", "ing"]
    assert found.types == [3, 3, 3, 3, 1, 1]


def ranks(*tokens: bytes) -> list[tuple[bytes, int]]:
    return [(token, i) for i, token in enumerate([*(bytes([b]) for b in range(256)), *tokens])]


@pytest.mark.parametrize(
    ("name", "pre", "special", "add_bos"),
    [
        ("tokenizer.model", "llama-bpe", "<|begin_of_text|>", True),
        ("qwen.tiktoken", "qwen2", "<|endoftext|>", False),
    ],
)
def test_tiktoken_files(name: str, pre: str, special: str, add_bos: bool, tmp_path: Path) -> None:
    """Ranks become ids and merges; special tokens follow them."""
    lines = [
        b"%b %d\n" % (base64.b64encode(token), i) for token, i in ranks(b"ab", b"abc", b" \xff")
    ]
    write_files(tmp_path, {name: b"".join(lines)})

    found = read_folder(tmp_path)

    assert (found.model, found.pre, found.add_bos) == ("gpt2", pre, add_bos)
    assert found.tokens[32] == "Ġ"
    assert found.tokens[256:260] == ["ab", "abc", "Ġÿ", special]
    assert found.merges == ["a b", "ab c", "Ġ ÿ"]


def test_tekken(tmp_path: Path) -> None:
    """Special tokens come first."""
    entries = [
        {"rank": i, "token_bytes": base64.b64encode(token).decode()} for token, i in ranks(b"ab")
    ]
    pattern = (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}"
        r"\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    config = {"pattern": pattern, "default_num_special_tokens": 3, "default_vocab_size": 260}
    write_files(
        tmp_path,
        {
            "tekken.json": {"config": config, "vocab": entries},
            "config.json": {"bos_token_id": 1, "eos_token_id": 2},
        },
    )

    found = read_folder(tmp_path)

    assert (found.pre, found.add_bos, found.merges) == ("tekken", True, ["a b"])
    assert (*found.tokens[:3], found.tokens[259]) == ("<unk>", "<s>", "</s>", "ab")
    assert found.special == {"bos": 1, "eos": 2}


# -- broken files --------------------------------------------------------------------------------------------------------

VOCAB = {text: i for i, text in enumerate(BYTES)}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer.json": "{"}, "tokenizer.json: is not valid JSON"),
        ({"tokenizer.json": "[]"}, "tokenizer.json: wanted an object"),
        (
            {"tokenizer.json": byte_level(type="WordLevel")},
            "tokenizer.json: llama.cpp has no tokenizer",
        ),
        ({"tokenizer.json": byte_level(merges=None)}, "tokenizer.json: model: 'merges' is missing"),
        ({"tokenizer.json": byte_level(merges=[])}, "no merges"),
        ({"tokenizer.json": byte_level(merges=["a b c"])}, "merge 0 is not a pair"),
        ({"tokenizer.json": byte_level(merges=[["a", 1]])}, "merge 0 is not a pair"),
        ({"tokenizer.json": byte_level(vocab={})}, "tokenizer.json: model: vocab: no tokens"),
        ({"tokenizer.json": byte_level(vocab={"a": "1"})}, "'a' has no id"),
        ({"tokenizer.json": byte_level(vocab={"a": 0, "b": 0})}, "'a' and 'b' have the same id 0"),
        ({"tokenizer.json": byte_level(vocab={"a": -1})}, "'a' has no id"),
        (
            {"tokenizer.json": byte_level(vocab={**VOCAB, "ab": 300})},
            "'ab' has id 300, but the model has 300",
        ),
        (
            {"tokenizer.json": byte_level(added_tokens=[{"id": 0}])},
            "added_tokens: 'content' is missing",
        ),
        ({"tokenizer.json": byte_level(added_tokens={"x": 1})}, "added_tokens: wanted a list"),
        (
            {"tokenizer.json": {"model": {"type": "Unigram", "vocab": [["a"]]}}},
            "entry 0: wanted a piece",
        ),
        (
            {"added_tokens.json": {"<x>": "y"}, "tokenizer.json": byte_level()},
            "added_tokens.json: '<x>'",
        ),
        ({"vocab.json": VOCAB}, "merges.txt: is missing"),
        ({"vocab.json": VOCAB, "merges.txt": "a b c\n"}, "merges.txt: line 1 is not a pair"),
        ({"tokenizer.model": b"\x0a\xff\xff"}, "tokenizer.model: is not a SentencePiece model"),
        (
            {"tokenizer.model": model_file(is_unigram=False)[:-3]},
            "tokenizer.model: is not a SentencePiece model",
        ),
        ({"tokenizer.model": field(2, field(3, 3)) + piece("a", 0)}, "of words or characters"),
        ({"tiktoken.model": b"!!! 1\n"}, "tiktoken.model: line 1"),
        ({"tekken.json": {"config": {}}}, "tekken.json: 'vocab' is missing"),
    ],
)
def test_broken_files_are_named(files: dict[str, object], message: str, tmp_path: Path) -> None:
    """A clear error with the file's name."""
    write_files(tmp_path, files)

    with pytest.raises(CheckpointError) as caught:
        read_folder(tmp_path, 300)

    assert message in str(caught.value)


def test_a_vocabulary_of_a_gigabyte_is_not_made(tmp_path: Path) -> None:
    """Neither a number in config.json nor an id asks for memory."""
    write_files(tmp_path, {"tokenizer.json": byte_level()})
    with pytest.raises(CheckpointError, match=r"config\.json: a vocabulary of 1000000000 tokens"):
        read_folder(tmp_path, 1_000_000_000)

    write_files(tmp_path, {"tokenizer.json": byte_level(vocab={"a": 1_000_000_000})})
    with pytest.raises(CheckpointError, match="'a' has id 1000000000"):
        read_folder(tmp_path)


def test_a_checkpoint_without_a_tokenizer_has_none(tmp_path: Path) -> None:
    """That is no error: some models have no text."""
    write_files(
        tmp_path, {"model.safetensors": (FIXTURES / "bert" / "model.safetensors").read_bytes()}
    )

    with open_checkpoint(tmp_path) as checkpoint:
        assert read_vocab(checkpoint, vocab_size=None) is None
