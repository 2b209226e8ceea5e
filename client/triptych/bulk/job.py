"""What is to be done: the list of images, cut into shards once and for all, in the folder of the results.

`_job/images.parquet` has the list, a row group for each shard. `_job/job.json` says what it was made from, and is
written last. A shard becomes `part-00000.parquet` and so on, whole or not there. So each image is in exactly one file,
however often its shard was begun.
"""

from __future__ import annotations

import io
import json
import os
import re
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from triptych.bulk.places import Place
from triptych.errors import ContractError

_FOLDER = "_job"
JOB, IMAGES = f"{_FOLDER}/job.json", f"{_FOLDER}/images.parquet"
"""Readers of Parquet pass over what begins with an underscore."""

_LIST = pa.schema([pa.field("path", pa.binary(), nullable=False)])  # a file's name may have any bytes
_PART = re.compile(r"part-(\d+)\.parquet")


@dataclass(frozen=True)
class Job:
    """What all files of one folder of results have in common.

    Attributes:
        source: where the images are, by the `name` of the `Place`: no secret is written down.
        score_threshold: as `DetectionClient.detect` takes it.
        iou_threshold: as `DetectionClient.detect` takes it.
        shard_images: how many images a shard has; the last one may have fewer.
        images: how many images there are.
    """

    source: str
    score_threshold: float | None
    iou_threshold: float | None
    shard_images: int
    images: int

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-self.images // self.shard_images)


def part_name(shard: int) -> str:
    """Return the name of the file that a shard becomes."""
    return f"part-{shard:05d}.parquet"


def begin(out: Place, source: Place, *, resume: bool, **settings: Any) -> Job:
    """List the images of a source and write down what is to be done; or read it, where that was done before.

    Args:
        out: where the results go.
        source: where the images are.
        resume: whether results may be there already.
        settings: the fields of `Job` that a person chooses.

    Raises:
        ContractError: there are no images, or `out` has something that is not to be continued, or not in this way.
        OSError: it cannot be written.
    """
    job = _read(out)
    if job is None:
        return _start(out, source, settings)
    if not resume:
        raise ContractError(f"{out.name} has results; continue them with --resume, or give another --out")
    for name, value in {"source": source.name, **settings}.items():
        if (begun := getattr(job, name)) != value:
            raise ContractError(
                f"{out.name} was begun with {name} {begun!r}, and cannot be continued with {value!r}; "
                "give what it was begun with, or another --out"
            )
    return job


def _start(out: Place, source: Place, settings: dict[str, Any]) -> Job:
    if out.names() - {_FOLDER}:
        raise ContractError(f"{out.name} holds other files; give an --out that is empty or not there")
    paths = source.images()
    if not paths:
        raise ContractError(f"there are no images in {source.name}")
    job = Job(source=source.name, images=len(paths), **settings)
    listed = io.BytesIO()
    column = pa.array([os.fsencode(path) for path in paths], pa.binary())
    pq.write_table(pa.table([column], schema=_LIST), listed, row_group_size=job.shard_images)
    out.write(IMAGES, listed.getvalue())
    out.write(JOB, json.dumps(asdict(job), indent=2).encode())
    return job


def _read(out: Place) -> Job | None:
    if _FOLDER not in out.names():
        return None
    try:
        with out.store.open_input_stream(out.path(JOB)) as stream:
            return Job(**json.loads(stream.read()))
    except FileNotFoundError:
        return None  # who listed the images has not come to its end
    except (OSError, TypeError, ValueError) as error:
        raise ContractError(f"{out.path(JOB)} cannot be read ({error}); give another --out") from error


def missing(out: Place, job: Job) -> list[int]:
    """Return the shards that are not done."""
    done = {int(match[1]) for name in out.names() if (match := _PART.fullmatch(name))}
    return sorted(set(range(job.shards)) - done)


def paths_of(out: Place, shard: int) -> list[str]:
    """Return the paths of the images of a shard.

    Raises:
        ContractError: the list is not there, as on a machine that does not see the folder of the results.
    """
    try:
        with out.store.open_input_file(out.path(IMAGES)) as file:
            column = pq.ParquetFile(file).read_row_group(shard).column("path")
    except OSError as error:
        raise ContractError(
            f"{out.path(IMAGES)} cannot be read ({error}); give an --out that every machine sees"
        ) from error
    return [os.fsdecode(path) for path in column.to_pylist()]
