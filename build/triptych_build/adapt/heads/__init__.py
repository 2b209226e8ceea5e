"""The detector heads that Triptych can serve: how each is recognised, how its numbers are read, and its tail.

A tail turns a head's raw outputs into the contract's `candidates` float32 [N, K, 6]: x1, y1, x2, y2 in letterbox
pixels, score, class; best first. It is made of plain ONNX operators. Scoring, top-k and the choice of the class thus
run inside the engine, on its own device, and 24 KB leave it in place of 2.8 MB.

A head is recognised by the shapes of the outputs, by what they were on a few images, by the class names and by the
graph's operators.
"""

from __future__ import annotations

from triptych.errors import BuildError
from triptych_build.adapt.heads.head import (
    Activation,
    Boxes,
    Head,
    NoObject,
    Normalization,
    Order,
    Output,
    Reading,
    Source,
    Tail,
    Unit,
)
from triptych_build.adapt.heads.query import QUERY, SPLIT
from triptych_build.adapt.heads.rows import END_TO_END, MMDEPLOY, SEPARATE
from triptych_build.adapt.heads.table import OBJECTNESS, RAW, YOLOX

__all__ = [
    "HEADS",
    "Activation",
    "Boxes",
    "Head",
    "NoObject",
    "Normalization",
    "Order",
    "Output",
    "Reading",
    "Source",
    "Tail",
    "Unit",
    "head_named",
    "recognise",
]

HEADS = (END_TO_END, YOLOX, OBJECTNESS, RAW, MMDEPLOY, SEPARATE, QUERY, SPLIT)
"""Every head; a source has the first that matches."""


def head_named(name: str, source: Source) -> Head:
    """Return the head that the user named.

    Raises:
        BuildError: no head has that name, and the message lists the names; or the source's outputs are others.
    """
    head = next((head for head in HEADS if head.name == name), None)
    if head is None:
        raise BuildError(f"there is no head {name!r}; choose one of {', '.join(head.name for head in HEADS)}")
    if not head.fits(source):
        raise BuildError(f"the head {name!r} needs {head.description}, but the model's outputs are {source}")
    return head


def recognise(source: Source) -> Head:
    """Return the first head that matches the source.

    Raises:
        BuildError: none matches; the message says what the outputs are and what would match.
    """
    for head in HEADS:
        if head.fits(source) and head.matches(source):
            return head
    supported = "; ".join(f"{head.name}: {head.description}" for head in HEADS)
    raise BuildError(f"the model's outputs are {source}, and no supported head matches them; supported are {supported}")
