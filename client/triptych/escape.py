r"""Text that an encoding cannot hold, escaped as JSON does it: `\u00e9`.

A terminal or a pipe may be ASCII. And the name of a file may have bytes that are not UTF-8, which Python reads as
signs of its own, such as `\udce9`. Written so, JSON stays JSON, and `os.fsencode` gives back the bytes.
"""

from __future__ import annotations

import codecs
import json

ESCAPE = "triptych.escape"
"""Give this as `errors` where text is encoded."""


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error(ESCAPE, _escape)
