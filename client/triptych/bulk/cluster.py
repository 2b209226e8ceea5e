"""All shards of a job on Ray Data: on a cluster, or on this machine alone."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from functools import partial
from typing import Any

import grpc
import ray
import ray.data

from triptych.bulk.job import Job
from triptych.bulk.shard import Done, Settings, do_shard
from triptych.errors import ServerUnavailable, TriptychError

_STORE_BYTES = 128 << 20
"""What Ray may hold in shared memory on this machine: the numbers of the shards, and their counts."""


@contextmanager
def connected(address: str | None, workers: int | None) -> Iterator[int]:
    """Connect to a Ray cluster, or start Ray on this machine; yield how many shards are to be done at a time.

    Args:
        address: the cluster's, as `ray.init` takes it; None starts Ray here, and ends it afterwards.
        workers: how many shards at a time; None takes one for each machine.

    Raises:
        TriptychError: Ray does not start or answer.
    """
    os.environ.setdefault(
        "RAY_USAGE_STATS_ENABLED", "0"
    )  # nothing is sent to Ray's makers unless somebody asked for it
    local: dict[str, Any] = {
        "address": "local",
        "num_cpus": workers or 1,
        # Ray gives a node 30 s to start. The dashboard takes most of that where the cores have other work.
        "include_dashboard": False,
        "object_store_memory": _STORE_BYTES,
    }
    where = {"address": address} if address else local
    try:
        ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises bare exceptions
        place = f"at {address}" if address else "on this machine"
        raise TriptychError(
            f"Ray does not start or answer {place}: {str(error).splitlines()[0]}; if the machine is busy, try again, "
            "or start it yourself with `ray start --head` and give --ray auto"
        ) from error
    try:
        with redirect_stdout(sys.stderr):  # Ray prints what happens to its nodes
            yield workers or sum(node["Alive"] for node in ray.nodes())
    finally:
        ray.shutdown()


def run(job: Job, settings: Settings, shards: Sequence[int], workers: int) -> Iterator[Done]:
    """Do shards, so many at a time, within `connected`; yield what came out of each as soon as it is done.

    Ray begins a shard again elsewhere if its machine is lost.

    Raises:
        ServerUnavailable: the server did not answer in time.
        TriptychError: a shard cannot be done; those that are done stay.
    """
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    dataset = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
    todo = partial(_do, job, settings)
    for answer in dataset.map(todo, compute=ray.data.TaskPoolStrategy(size=workers), num_cpus=1).iter_rows():
        if answer["gone"]:
            raise ServerUnavailable(answer["problem"], grpc.StatusCode.UNAVAILABLE)
        if answer["problem"]:
            raise TriptychError(answer["problem"])
        yield Done(**json.loads(answer["done"]))


def _do(job: Job, settings: Settings, item: dict[str, int]) -> dict[str, Any]:
    """Do a shard in a process of Ray's, which would hide our errors in its own."""
    done, problem, gone = "", "", False
    try:
        done = json.dumps(asdict(do_shard(job, settings, int(item["shard"]))))
    except (TriptychError, OSError) as error:
        problem, gone = str(error), isinstance(error, ServerUnavailable)
    return {"done": done, "problem": problem, "gone": gone}
