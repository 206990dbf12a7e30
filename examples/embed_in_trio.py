"""Stream a chat with the built-in model from inside a trio program: no HTTP, no daemon.

    python examples/embed_in_trio.py "Why is the sky blue?"

The store is a temporary folder here; leave `settings` out to use your own.
"""

from __future__ import annotations

import sys
import tempfile

import trio

from olm.actors.client import ChatRequest
from olm.chat.types import ChatMessage, Done, Piece
from olm.config import read_settings
from olm.embed import open_olm


async def main(question: str) -> None:
    """Ask one question and print the answer as it comes."""
    with tempfile.TemporaryDirectory() as folder:
        settings = read_settings({"OLM_HOME": folder})
        async with open_olm(settings) as olm:
            request = ChatRequest(
                model="tiny", messages=[ChatMessage(role="user", content=question)]
            )
            async with olm.models.chat(request) as turn:
                async for event in turn:
                    match event:
                        case Piece():
                            print(event.content, end="", flush=True)
                        case Done():
                            print(f"\n[{event.n_generated} tokens, {event.reason}]")


if __name__ == "__main__":
    trio.run(main, " ".join(sys.argv[1:]) or "Hello!")
