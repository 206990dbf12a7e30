"""The bounds on template work: memory comes back as a clear error, work that does not end is given up."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import trio
from native_kit import plain_rendered

from olm.chat.rendering import Rendered
from olm.chat.types import ChatMessage, ChatPrompt
from olm.errors import ModelError, TemplateError
from olm.native.guard import TemplateStuck, ThreadTemplate, bounded_here, bounded_in_thread

pytestmark = pytest.mark.native

TINY = Path(__file__).parents[2] / "src/olm/data/tiny/tiny-q8_0.gguf"


@pytest.mark.parametrize("bounded", [bounded_here, bounded_in_thread])
def test_what_is_asked_comes_back_and_no_limit_stays(bounded: object) -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    assert callable(bounded)

    assert bounded(lambda: resource.getrlimit(resource.RLIMIT_DATA)) != before

    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    with pytest.raises(KeyError, match="OLM_OWN"):
        bounded(lambda: os.environ["OLM_OWN"])
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "source",
    [
        "{% set n = namespace(s='aa') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
        "{{ range(1000000000) | length }}",
    ],
    ids=["text", "list"],
)
def test_a_template_without_bounds_is_a_clear_error(backend: Path, source: str) -> None:
    """In a process of its own: what other tests have freed here would count as room, gigabytes of it."""
    code = """
import sys
from pathlib import Path
from olm.chat.types import ChatMessage, ChatPrompt
from olm.errors import TemplateError
from olm.native import guard
from olm.native.chat import ChatTemplate
from olm.native.handles import Model, initialize
guard.TEMPLATE_MEMORY_BYTES = 48 << 20
initialize(Path(sys.argv[1]))
def render():
    with ChatTemplate(model, sys.argv[3]) as template:
        return template.render(ChatPrompt((ChatMessage("user", "Hello"),)), new_id=str)
with Model.load(Path(sys.argv[2])) as model:
    try:
        guard.bounded_in_thread(render)
    except TemplateError as exc:
        print(exc)
"""
    command = [sys.executable, "-c", code, str(backend), str(TINY), source]

    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)

    assert result.stdout == "the model's chat template needs too much memory\n"


def test_work_that_does_not_end_is_given_up() -> None:
    end = threading.Event()
    try:
        with pytest.raises(TemplateStuck, match="does not end") as caught:
            bounded_in_thread(end.wait, timeout_s=0.02)
    finally:
        end.set()

    # Cutting a conversation passes over cuts that do not render; this must come through.
    assert isinstance(caught.value, ModelError)
    assert not isinstance(caught.value, TemplateError)


class Endless:
    """Renders until nobody waits any more; tells when it began."""

    def __init__(self) -> None:
        self.n_rendered = 0
        self.began = threading.Event()

    def render(self, prompt: ChatPrompt) -> Rendered:
        self.n_rendered += 1
        self.began.set()
        return plain_rendered("text")


async def test_nothing_more_is_rendered_for_a_client_that_is_gone() -> None:
    endless = Endless()
    bounded = ThreadTemplate(endless)
    prompt = ChatPrompt(messages=(ChatMessage("user", "Hello"),))

    def work() -> None:
        while True:
            bounded.render(prompt)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, work)
            await trio.to_thread.run_sync(endless.began.wait)
            nursery.cancel_scope.cancel()

    assert endless.n_rendered > 0
