"""What `tiny` says through the whole path, from HTTP to the engine: greedy answers equal the references of eval.json."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
SAMPLES = json.loads((REPO / "models" / "tiny" / "eval.json").read_text("utf-8"))["samples"]

pytestmark = [pytest.mark.native, pytest.mark.daemon, pytest.mark.slow]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A daemon on an empty store: the model must be in it without anybody's doing."""
    sys.path.insert(0, str(REPO / "bench"))
    try:
        from servers import open_olm
    finally:
        sys.path.remove(str(REPO / "bench"))
    with open_olm(tmp_path_factory.mktemp("store")) as server:
        yield server.url


def post(url: str, path: str, body: dict[str, object]) -> dict[str, object]:
    payload = json.dumps({**body, "model": "tiny", "stream": False}).encode()
    request = urllib.request.Request(url + path, payload, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        answer: dict[str, object] = json.load(reply)
        return answer


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s["prompt"][:24].replace("\n", " "))
def test_greedy_answer_equals_the_reference(url: str, sample: dict[str, object]) -> None:
    prompt_ids, output_ids = sample["prompt_ids"], sample["output_ids"]
    assert isinstance(prompt_ids, list)
    assert isinstance(output_ids, list)
    options = {"num_predict": len(output_ids)}

    body = {"prompt": sample["prompt"], "raw": True, "options": options}
    answer = post(url, "/api/generate", body)

    assert str(answer["response"]).strip() == str(sample["output"]).strip()
    assert answer["prompt_eval_count"] == len(prompt_ids)


def test_the_chat_template_gives_the_reference_prompt(url: str) -> None:
    sample = SAMPLES[0]  # "Why is the sky blue?", with thinking off
    question = {"role": "user", "content": "Why is the sky blue?"}

    answer = post(url, "/api/chat", {"messages": [question], "think": False})

    message = answer["message"]
    assert isinstance(message, dict)
    assert message["content"] == sample["output"]
    assert answer["prompt_eval_count"] == len(sample["prompt_ids"])
    assert answer["done_reason"] == "stop"
