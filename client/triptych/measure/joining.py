"""What the server saw of requests and what clients saw of them, joined as both come, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable

from triptych.measure.attribution import Answer, Requests
from triptych.measure.traces import TracedRequest

MOST_JOINED = 50_000
"""At most so many requests are kept. When there are more, every second one is dropped, and only one in two is taken
from then on, so that those that are kept are spread evenly over the time."""

WAIT_S = 30.0
"""How much later than the answer a request's trace may come: until then the answer waits for it."""

MOST_UNANSWERED = 20_000
"""So many traces wait for their answers; those of other clients wait in vain."""


class Joined:
    """Requests that both sides know.

    Attributes:
        requests: those that are kept.
        one_in: of how many that were joined one is kept.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.requests = Requests.join([], {})
        self.one_in = 1
        self._answers: dict[str, Answer] = {}
        self._traces: dict[str, TracedRequest] = {}
        self._count = 0

    def answer(self, request_id: str, answer: Answer) -> None:
        """Take what a client saw of a request, in the order in which they ended."""
        self._answers[request_id] = answer

    def traced(self, traced: Iterable[TracedRequest]) -> None:
        """Take what the server saw of some requests; join those whose answers are there."""
        for request in sorted(traced, key=lambda request: request.began_ns):
            self._traces[request.request_id] = request  # the last of several, where one was sent again
        both = [request_id for request_id in self._traces if request_id in self._answers]
        fresh = Requests.join(
            [self._traces.pop(request_id) for request_id in both],
            {request_id: self._answers.pop(request_id) for request_id in both},
        )
        self._keep(fresh)
        if len(fresh):
            self._forget(float(fresh.at_s.max()) - WAIT_S)

    def _keep(self, fresh: Requests) -> None:
        self.requests += fresh[-self._count % self.one_in :: self.one_in]
        self._count += len(fresh)
        while len(self.requests) > MOST_JOINED:
            self.requests = self.requests[::2]
            self.one_in *= 2

    def _forget(self, before_s: float) -> None:
        """Drop answers whose traces would have come, and the oldest traces that nobody answers for."""
        for request_id in list(self._answers):
            if self._answers[request_id].at_s >= before_s:
                break
            del self._answers[request_id]
        for request_id in list(self._traces)[: max(0, len(self._traces) - MOST_UNANSWERED)]:
            del self._traces[request_id]
