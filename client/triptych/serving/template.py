"""What `triptych init` lays out: a model repository without a detector, a locustfile, and a README.

The files are those of a checkout. A wheel carries copies of them in `triptych/template` (see pyproject.toml).
"""

from __future__ import annotations

from pathlib import Path

from tritonclient.grpc import model_config_pb2

from triptych.contract import DETECTION, POSTPROCESS, PREPROCESS
from triptych.errors import TriptychError
from triptych.files import atomic_write
from triptych.model_config import read_config

CHECKOUT = {
    "model_repository/detection/config.pbtxt": "model_repository/detection/config.pbtxt",
    "model_repository/detector/README.md": "model_repository/detector/README.md",
    "model_repository/postprocess/config.pbtxt": "model_repository/postprocess/config.pbtxt",
    "model_repository/postprocess/1/model.py": "model_repository/postprocess/1/model.py",
    "model_repository/preprocess/config.pbtxt": "model_repository/preprocess/config.pbtxt",
    "model_repository/preprocess/1/model.py": "model_repository/preprocess/1/model.py",
    "locustfile.py": "loadtest/locustfile.py",
}
"""By the path in the new directory: the path in a checkout."""

README = """\
# {name}

An object detector as a Triton service, laid out by `triptych init`.

    triptych build MODEL.onnx              # adapt your detector, verify it, publish it into model_repository/
    triptych serve                         # serve it on this machine (in another terminal)
    triptych detect IMAGE                  # ask it
    triptych loadtest --images DIR         # see where each millisecond goes

`triptych doctor` says what keeps a server from loading what is published. `triptych --help` lists all commands.
"""


def lay_out(directory: Path) -> list[Path]:
    """Write a model repository, a locustfile and a README into a directory; leave what is already there alone.

    Args:
        directory: where; it is made if need be.

    Returns:
        The files that were written, in the order of their names; empty if all were there.

    Raises:
        TriptychError: the directory is a file.
        OSError: the disk refuses.
    """
    if directory.exists() and not directory.is_dir():
        raise TriptychError(f"{directory} is a file, and must be a directory or not there; choose another name")
    texts = {Path(name): _source(name).read_text(encoding="utf-8") for name in CHECKOUT}
    texts[Path("README.md")] = README.format(name=directory.resolve().name)
    written = [directory / path for path in sorted(texts) if not (directory / path).exists()]
    for path in written:
        with atomic_write(path) as temporary:
            temporary.write_text(texts[path.relative_to(directory)], encoding="utf-8")
    # Triton wants a version directory for an ensemble too, which holds nothing.
    (directory / "model_repository" / "detection" / "1").mkdir(parents=True, exist_ok=True)
    return written


def configs() -> dict[str, model_config_pb2.ModelConfig]:
    """Return the configurations of the models around the detector, as they are laid out, by the model's name."""
    names = (DETECTION.name, PREPROCESS.name, POSTPROCESS.name)
    return {name: read_config(_source(f"model_repository/{name}/config.pbtxt").parent) for name in names}


def _source(name: str) -> Path:
    package = Path(__file__).parents[1]
    packaged = package / "template" / name
    return packaged if packaged.is_file() else package.parents[1] / CHECKOUT[name]
