"""Class names are those of the version that answered, in both clients, whatever the server switches over to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from support.calls import call_sync, calls
from support.fake_server import CLASS_NAMES, FakeServer
from triptych.contract import NAMES, names_id
from triptych.errors import ContractError

Call = Callable[[FakeServer, Callable[[Any], Any]], Any]

OTHER_NAMES = ("cat", "dog", "cow")


def meaning(names: tuple[str, ...] | None) -> Callable[[Any], None]:
    """The answer comes from a detector with these names, or from a server that is too old to say."""

    def change(response: Any) -> None:
        index = [output.name for output in response.outputs].index(NAMES.name)
        if names is None:
            del response.outputs[index], response.raw_output_contents[index]
        else:
            images = response.outputs[index].shape[0]
            response.raw_output_contents[index] = np.full((images, 1), names_id(names), "<i4").tobytes()

    return change


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triptych.wire.session.NAMES_PAUSES_S", (0.0,) * 5)


@calls
def test_names_for_answers_are_asked_for_once(server: FakeServer, call: Call) -> None:
    results = call(server, lambda client: client.detect_batch([b"abc"] * 9))
    assert {result.names for result in results} == {CLASS_NAMES}
    assert server.config_requests == ["detection", "detector"]


@calls
def test_each_answer_has_its_own_names(server: FakeServer, call: Call) -> None:
    """A batch of three requests, and the server switches over after the first."""

    def switch(response: Any) -> None:
        server.class_names = OTHER_NAMES
        meaning(OTHER_NAMES)(response)

    server.script.extend([meaning(CLASS_NAMES), switch, meaning(CLASS_NAMES)])
    results = call(server, lambda client: client.detect_batch([b"abc"] * 12))
    assert [result.names for result in results] == [CLASS_NAMES] * 4 + [OTHER_NAMES] * 4 + [CLASS_NAMES] * 4
    assert server.config_requests == ["detection", "detector", "detector"], "asked once for each"


@calls
def test_the_version_that_answered_first_is_gone(server: FakeServer, call: Call) -> None:
    """Its names cannot be asked for any more, so the image is sent once more."""
    server.script.append(meaning(OTHER_NAMES))
    assert call(server, lambda client: client.detect(b"abc")).names == CLASS_NAMES
    assert len(server.requests) == 2


@calls
def test_names_that_never_fit(server: FakeServer, call: Call) -> None:
    server.script.extend([meaning(OTHER_NAMES)] * 9)
    with pytest.raises(ContractError, match="mean other class names than its detector has, time after time"):
        call(server, lambda client: client.detect(b"abc"))
    assert len(server.requests) == 5


@calls
def test_a_server_that_is_too_old_to_say(server: FakeServer, call: Call) -> None:
    server.script.extend([meaning(None)] * 3)
    results = call(server, lambda client: client.detect_batch([b"abc"] * 9))
    assert {result.names for result in results} == {CLASS_NAMES}
    assert server.config_requests == ["detection", "detector"]


def test_an_old_server_with_more_classes_than_before(server: FakeServer) -> None:
    def both(client: Any) -> Any:
        server.class_names = ("person",)
        server.script.extend([meaning(None)] * 2)
        first = client.detect(b"a").names
        server.class_names = CLASS_NAMES
        return first, client.detect(b"abc").names

    assert call_sync(server, both) == (("person",), CLASS_NAMES)


def test_images_that_cannot_be_read_need_no_names(server: FakeServer) -> None:
    def both(client: Any) -> Any:
        return [*client.detect_batch([b"a", "nowhere.jpg"]), *client.detect_batch(["nowhere.jpg"])]

    assert [result.class_names for result in call_sync(server, both)] == [CLASS_NAMES] * 3
    assert server.config_requests == ["detection", "detector"]
