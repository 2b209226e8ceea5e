"""One of two real servers is told to end under load: no request of a client of both fails."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from live.test_server import Serving
from support import ROOT
from triptych.client import DetectionClient
from triptych.errors import ModelNotFound, RequestError

pytestmark = [pytest.mark.triton, pytest.mark.slow]

USERS = 8


def test_no_request_fails_while_one_of_two_servers_ends(demo_repository: Path, tmp_path: Path) -> None:
    image = (ROOT / "docs" / "board.jpg").read_bytes()
    failures, answered, after = list[RequestError](), [0] * USERS, [0] * USERS
    ended, enough = threading.Event(), threading.Event()
    with ExitStack() as stack:
        servings = []
        for name in ("one", "other"):
            repository = shutil.copytree(demo_repository, tmp_path / name / "model_repository")
            servings.append(stack.enter_context(Serving(repository)))
        for serving in servings:
            serving.wait_ready()
        client = stack.enter_context(DetectionClient([serving.address for serving in servings], timeout_s=60))

        def use(user: int) -> None:
            while not enough.is_set():
                try:
                    assert len(client.detect(image))
                except RequestError as error:
                    failures.append(error)
                answered[user] += 1
                after[user] += ended.is_set()

        users = [threading.Thread(target=use, args=(user,)) for user in range(USERS)]
        for thread in users:
            thread.start()
        while min(answered) < 2:
            time.sleep(0.02)
        servings[0].process.send_signal(signal.SIGTERM)
        assert servings[0].process.wait(60) == 0
        ended.set()
        while min(after) < 2:
            time.sleep(0.02)
        enough.set()
        for thread in users:
            thread.join()
        assert failures == []
        with pytest.raises(ModelNotFound), DetectionClient(servings[1].address, model="nonsense") as other:
            other.detect(image)
