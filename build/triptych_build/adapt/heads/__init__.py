"""The detector heads that Triptych can serve: how each is recognised, and its tail of plain ONNX operators.

A tail turns a head's raw outputs into the contract's `candidates` float32 [N, K, 6]: x1, y1, x2, y2 in letterbox
pixels, score, class; best first. Scoring, top-k and the choice of the class thus run inside the engine, on its
own device, and 24 KB leave it in place of 2.8 MB.
"""

from __future__ import annotations

from triptych.errors import BuildError
from triptych_build.adapt.heads.end_to_end import END_TO_END
from triptych_build.adapt.heads.head import Head, Normalization, Order, Output, Source, Tail
from triptych_build.adapt.heads.mmdeploy import MMDEPLOY
from triptych_build.adapt.heads.objectness import OBJECTNESS, YOLOX
from triptych_build.adapt.heads.query import QUERY
from triptych_build.adapt.heads.raw import RAW

__all__ = ["HEADS", "Head", "Normalization", "Order", "Output", "Source", "Tail", "head_named", "recognise"]

HEADS = (YOLOX, OBJECTNESS, END_TO_END, RAW, QUERY, MMDEPLOY)
"""Every head; a source has the first that matches."""


def head_named(name: str) -> Head:
    """Return the head that the user named.

    Raises:
        BuildError: no head has that name; the message lists the names.
    """
    for head in HEADS:
        if head.name == name:
            return head
    raise BuildError(f"there is no head {name!r}; choose one of {', '.join(head.name for head in HEADS)}")


def recognise(source: Source) -> Head:
    """Return the first head that matches the source.

    Raises:
        BuildError: none matches; the message says what the outputs are and what would match.
    """
    for head in HEADS:
        if head.matches(source):
            return head
    outputs = "; ".join(str(output) for output in source.outputs)
    supported = "; ".join(f"{head.name}: {head.description}" for head in HEADS)
    raise BuildError(
        f"the model's outputs are {outputs}, and no supported head matches them; supported are {supported}"
    )
