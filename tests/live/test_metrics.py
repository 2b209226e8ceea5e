"""The stages' own metrics on the real Triton's page: with several processes, over reloads, deaths and switches."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support import ROOT
from support.images import JPEG, PNG
from support.prometheus import Samples, scrape, total, wait_for
from support.traffic import Traffic
from triptych import DetectionClient
from triptych.serving import Ports, TritonServer
from triptych.serving.processes import kill_processes
from triptych.serving.repository import activate
from triptych.serving.stages.observers import OTHER
from triptych_build.adapt import adapter as adapt
from triptych_build.publish import publish
from triptych_build.publish.target import InstanceGroup

pytestmark = pytest.mark.triton

STAGES = ("preprocess", "postprocess")
ONE = InstanceGroup(count=1, threads=1)


@pytest.fixture
def server(make_repository: Callable[..., Path], tmp_path: Path) -> Iterator[TritonServer]:
    repository = make_repository(ROOT / "demo" / "pcb.onnx", group=ONE)
    instances = dict.fromkeys(STAGES, 2)
    with TritonServer(repository, ports=Ports.free(), log_path=tmp_path / "log", instances=instances) as server:
        yield server


def detect(server: TritonServer, images: int) -> None:
    """Send so many good images, several at a time."""
    with DetectionClient(server.grpc_address, timeout_s=30) as client, ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: client.detect(JPEG) is not None, range(images)))


def test_processes_add_up_and_a_reload_neither_doubles_nor_ends_anything(server: TritonServer, tmp_path: Path) -> None:
    detect(server, 20)
    with DetectionClient(server.grpc_address, timeout_s=30) as client:
        bad = client.detect_batch([b"nonsense", PNG, JPEG[:-300]], request_id='order "7"')
    assert [bool(result.error) for result in bad] == [True, False, True]
    expected = {
        "triptych_images_total": 23,
        "triptych_images_answered_total": 23,
        "triptych_images_unreadable_total": 2,
        "triptych_encoded_bytes_total": 20 * len(JPEG) + len(b"nonsense") + len(PNG) + len(JPEG) - 300,
    }
    samples = wait_for(server, expected)
    assert len({labels["process"] for labels, _ in samples["triptych_images_total"]}) == 2
    assert total(samples, "triptych_images_unreadable_total", fault="format") == 1
    assert total(samples, "triptych_decoder_deaths_total") == 0
    [line] = [line for line in server.log_path.read_text().splitlines() if 'fault="format"' in line]
    assert r'request_id="order \"7\""' in line

    before = {labels["process"] for name in samples for labels, _ in samples[name] if "process" in labels}
    for stage in STAGES:
        server.reload(stage)
    detect(server, 10)
    # Triton ends the old processes once their requests are answered, and their series go with them.
    samples = wait_for(server, {"triptych_images_total": 10, "triptych_images_answered_total": 10})
    assert not before & {labels["process"] for labels, _ in samples["triptych_images_total"]}
    server.raise_if_ended()


def test_the_page_says_which_detector_is_served_and_whether_it_is_the_published_one(demo_server: TritonServer) -> None:
    samples = scrape(demo_server)
    [(labels, value), *_] = samples["triptych_detector_info"]
    assert value == 1
    assert labels["target"] == "openvino"
    assert len(labels["model_sha256"]) == 64
    assert {value for _, value in samples["triptych_engine_matches_manifest"]} == {1}
    assert {value for _, value in samples["triptych_gate_timestamp_seconds"]} == {0}, "the demo was never verified"


@pytest.mark.slow
def test_after_a_switch_to_other_class_names_each_count_has_the_name_that_the_client_got(
    server: TritonServer, tmp_path: Path
) -> None:
    repository = server._model_repository
    board = (ROOT / "docs" / "board.jpg").read_bytes()

    def count() -> Counter[str]:
        with DetectionClient(server.grpc_address, timeout_s=30) as client, ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: client.detect(board, score_threshold=0.01), range(20)))
        return Counter(detection.name for answer in answers for detection in answer)

    old = count()
    assert old
    wait_for(server, {"triptych_detections_total": sum(old.values())})
    names = tuple(f"renamed {number}" for number in range(6))
    adapt.adapt_file(ROOT / "demo" / "pcb.onnx", tmp_path / "other.onnx", adapt.Overrides(names=names))
    with Traffic(server.grpc_address) as traffic:
        traffic.take_next(6)
        version = publish.publish(tmp_path / "other.onnx", "openvino", repository, ONE)
        activate(repository, int(version.name), server.grpc_address)
        outcomes = traffic.take_next(6)
    assert not traffic.failures(outcomes)
    before = settled(server)
    known = by_class(before)
    new = count()
    answered, detected = "triptych_images_answered_total", "triptych_detections_total"
    expected = {answered: total(before, answered) + 20, detected: total(before, detected) + sum(new.values())}
    samples = wait_for(server, expected)
    assert by_class(samples) - known == new
    assert set(new) <= set(names)
    assert set(by_class(samples)) <= {*names, *old, OTHER}
    assert version.name in {labels["version"] for labels, _ in samples["triptych_detector_info"]}
    assert total(samples, "triptych_engine_matches_manifest", version=version.name) == 2, "one for each process"
    assert {
        labels["version"]
        for labels, _ in samples["nv_inference_pending_request_count"]
        if labels["model"] == "detector"
    } == {version.name}


@pytest.mark.slow
def test_a_process_that_was_killed_does_not_disturb_the_others(server: TritonServer) -> None:
    detect(server, 10)
    wait_for(server, {"triptych_images_answered_total": 10})
    victims = [process for process in server.processes() if process.model == "postprocess"]
    kill_processes(victims[:1])
    server.reload("postprocess")
    detect(server, 10)
    # What a killed process had counted may stay on the page of Triton 2.51 until it ends.
    for _ in range(50):
        samples = scrape(server)
        started = {labels["process"]: at for labels, at in samples["triptych_process_start_time_seconds"]}
        fresh = [str(process.pid) for process in server.processes() if process.model == "postprocess"]
        counted = sum(total(samples, "triptych_images_answered_total", process=process) for process in fresh)
        if set(fresh) <= set(started) and counted >= 10:
            break
        time.sleep(0.1)
    assert counted >= 10
    assert max(started, key=lambda process: started[process]) in fresh
    server.raise_if_ended()


def by_class(samples: Samples) -> Counter[str]:
    counts: Counter[str] = Counter()
    for labels, value in samples.get("triptych_detections_total", []):
        counts[labels["class"]] += int(value)
    return counts


def settled(server: TritonServer) -> Samples:
    """Wait until the processes of before a switch are gone, and all is counted."""
    previous, samples = None, scrape(server)
    while previous != samples["triptych_images_answered_total"]:
        previous = samples["triptych_images_answered_total"]
        time.sleep(2.5)
        samples = scrape(server)
    return samples
