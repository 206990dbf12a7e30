"""Conversions run in a child: they tell how far they are, stop at once, and leave nothing when they fail or die."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path

import pytest
import trio
from convert_kit import Shape, random_model

from olm.actors.runtime import open_supervisor
from olm.convert.job import open_conversion
from olm.convert.wire import Convert, Converted, ConvertEvent, ConvertStep, Quantization
from olm.convert.writer import write_gguf
from olm.errors import GgufError, InvalidRequest, ModelError
from olm.gguf import read_header
from runtime.runtime_children import children_of_this_process

pytestmark = [pytest.mark.native, pytest.mark.slow]


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    """A model that takes a while to quantize to types with large tables."""
    path = tmp_path / "source.gguf"
    write_gguf(random_model(Shape(n_layers=30, n_embd=1024, n_ff=1024)), path)
    return path


async def _all(request: Convert) -> list[ConvertEvent]:
    async with open_supervisor() as supervisor, open_conversion(supervisor, "c", request) as events:
        return [event async for event in events]


async def test_a_gguf_is_quantized_in_a_child(gguf: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    request = Convert(
        target=str(target), ggufs=[str(gguf)], quantization=Quantization(file_type="Q8_0")
    )

    events = await _all(request)

    data = target.read_bytes()
    assert events[-1] == Converted(
        "model", str(target), hashlib.sha256(data).hexdigest(), len(data)
    )
    assert events[0] == ConvertStep("model", 0, 0)
    assert read_header(target).integer("general.file_type") == 7


async def test_a_conversion_that_nobody_waits_for_stops_and_leaves_nothing(
    gguf: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    wanted = Quantization(file_type="IQ4_XS", output_type="IQ4_XS")
    request = Convert(target=str(target), ggufs=[str(gguf)], quantization=wanted)
    before = set(children_of_this_process())

    async with open_supervisor() as supervisor:
        async with open_conversion(supervisor, "c", request) as events:
            async for event in events:
                if isinstance(event, ConvertStep) and event.total:
                    break
            start_s = trio.current_time()
        took_s = trio.current_time() - start_s

    assert took_s < 1.5
    assert not target.exists()
    assert set(children_of_this_process()) <= before


async def test_a_child_that_dies_is_an_error_and_leaves_nothing(gguf: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    wanted = Quantization(file_type="IQ4_XS")
    request = Convert(target=str(target), ggufs=[str(gguf)], quantization=wanted)
    before = set(children_of_this_process())

    async def kill_it() -> None:
        async with open_supervisor() as top, open_conversion(top, "c", request) as events:
            await anext(events)
            (child,) = set(children_of_this_process()) - before
            os.kill(child, signal.SIGKILL)
            await anext(event async for event in events if isinstance(event, Converted))

    with pytest.raises(ExceptionGroup) as caught:
        await kill_it()

    assert caught.group_contains(ModelError, match="SIGKILL")
    assert not target.exists()


async def test_a_refusal_crosses_the_border_as_it_is(gguf: Path, tmp_path: Path) -> None:
    wanted = Quantization(file_type="IQ2_XS")
    request = Convert(target=str(tmp_path / "out"), ggufs=[str(gguf)], quantization=wanted)

    with pytest.raises(ExceptionGroup) as caught:
        await _all(request)

    assert caught.group_contains(InvalidRequest, match="needs an importance matrix")


async def test_a_damaged_file_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    source, target = tmp_path / "source.gguf", tmp_path / "out"
    source.write_bytes(b"GGUF" + bytes(100))

    with pytest.raises(ExceptionGroup) as caught:
        await _all(Convert(target=str(target), ggufs=[str(source)]))

    assert caught.group_contains(GgufError)
    assert not target.exists()
