"""Models that only embed: no memory, no causal mask, no text. A random BERT is written for it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from struct import unpack

import gguf
import numpy as np
import pytest

from olm.native.engine import Embedding, Engine, EngineOptions, Event
from olm.native.handles import Model
from olm.native.lib import PromptTooLong, Unsupported

pytestmark = pytest.mark.native

WIDTH, LAYERS, CONTEXT = 32, 2, 64
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *(f"▁{word}" for word in ["the", "sky", "is", "blue", "a", "cat", "sat"]),
]


def write_bert(path: Path) -> None:
    """Write a BERT of two layers with Gaussian weights."""
    source = np.random.default_rng(5)
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(4 * WIDTH)
    writer.add_head_count(4)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(WORDS)
    writer.add_token_types([3] * 5 + [1] * (len(WORDS) - 5))
    writer.add_token_type_count(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_sep_token_id(3)
    writer.add_mask_token_id(4)

    def matrix(name: str, *shape: int) -> None:
        values = source.standard_normal(shape) / math.sqrt(shape[-1])
        writer.add_tensor(name, values.astype(np.float32))

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(WIDTH, np.float32))

    matrix("token_embd.weight", len(WORDS), WIDTH)
    matrix("position_embd.weight", CONTEXT, WIDTH)
    matrix("token_types.weight", 2, WIDTH)
    norm("token_embd_norm")
    for layer in range(LAYERS):
        at = f"blk.{layer}"
        shapes = {"attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH, WIDTH), "attn_v": (WIDTH, WIDTH),
                  "attn_output": (WIDTH, WIDTH), "ffn_up": (4 * WIDTH, WIDTH), "ffn_down": (WIDTH, 4 * WIDTH)}  # fmt: skip
        for name, shape in shapes.items():
            matrix(f"{at}.{name}.weight", *shape)
            writer.add_tensor(f"{at}.{name}.bias", np.zeros(shape[0], np.float32))
        norm(f"{at}.attn_output_norm")
        norm(f"{at}.layer_output_norm")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def bert(backend: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = tmp_path_factory.mktemp("bert") / "bert.gguf"
    write_bert(path)
    with Model.load(path) as model:
        yield model


@pytest.fixture
def engine(bert: Model) -> Iterator[Engine]:
    with Engine(bert, EngineOptions(n_ctx=CONTEXT, n_parallel=2, n_threads=1)) as engine:
        yield engine


async def vectors(
    engine: Engine, inputs: list[list[int]]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    request = engine.embed(inputs)
    events: list[Event] = []
    while not events:
        events = [event for event in await engine.next_events() if event.request == request]
    [event] = events
    assert isinstance(event, Embedding), event
    flat = unpack(f"<{event.n_vectors * event.n_embd}f", event.vectors)
    return np.array(flat, np.float32).reshape(event.n_vectors, event.n_embd)


def test_its_facts(bert: Model) -> None:
    assert (bert.info.arch, bert.info.pooling, bert.info.vocab_type) == ("bert", 1, "wpm")
    assert not bert.info.has_chat_template
    assert bert.tokenize("the sky") == [2, 5, 6, 3]


async def test_a_batch_gives_what_each_input_gives_alone(engine: Engine, bert: Model) -> None:
    inputs = [
        bert.tokenize(text) for text in ("the sky is blue", "a cat sat", "blue", "the cat is blue")
    ]

    together = await vectors(engine, inputs)
    alone = np.concatenate([await vectors(engine, [tokens]) for tokens in inputs])

    np.testing.assert_allclose(together, alone, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert abs(float(together[0] @ together[1])) < 0.999


async def test_every_token_sees_every_other(engine: Engine, bert: Model) -> None:
    one, other = await vectors(engine, [bert.tokenize("the sky is"), bert.tokenize("is sky the")])

    assert abs(float(one @ other)) < 0.9999


async def test_a_full_context_fits_and_more_is_refused(engine: Engine) -> None:
    assert (await vectors(engine, [[5] * CONTEXT])).shape == (1, WIDTH)
    with pytest.raises(PromptTooLong):
        engine.embed([[5] * (CONTEXT + 1)])


def test_it_writes_no_text(engine: Engine) -> None:
    with pytest.raises(Unsupported, match="does not generate"):
        engine.submit([5, 6])
