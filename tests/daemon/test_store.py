"""The store under a whole daemon: a model deleted while it answers, and a look through the store beside that."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx2
import pytest

from kit.daemon import Daemon

pytestmark = [pytest.mark.daemon, pytest.mark.native, pytest.mark.slow]

STORY = {
    "model": "copy",
    "prompt": "Once upon a time",
    "raw": True,
    "options": {"num_predict": 120, "temperature": 0, "stop": []},
}


def test_a_model_deleted_while_it_answers_goes_on_until_it_is_unloaded(
    start_daemon: Callable[[], Daemon],
) -> None:
    daemon = start_daemon()
    with httpx2.Client(base_url=daemon.url, timeout=60) as client:
        assert client.post("/api/copy", json={"source": "tiny", "destination": "copy"}).is_success
        whole = client.post("/api/generate", json={**STORY, "stream": False}).json()
        text = ""
        with client.stream("POST", "/api/generate", json=STORY) as reply:
            for line in reply.iter_lines():
                if not text:
                    for name in ("copy", "tiny"):
                        gone = client.request("DELETE", "/api/delete", json={"model": name})
                        assert gone.status_code == 200, gone.text
                    assert not list((daemon.home / "models/blobs").iterdir())
                text += json.loads(line)["response"]
        listed = client.get("/api/tags").json()
        again = client.post("/api/generate", json={**STORY, "stream": False})
        found = client.post("/api/store/check", json={"stream": False}).json()

    assert text == whole["response"]
    assert listed == {"models": []}
    assert again.status_code == 404
    assert found == {"status": "success", "findings": []}
