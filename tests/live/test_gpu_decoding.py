"""The real server with a stand-in for the GPU: images of both ways, together in one request, and their metrics.

`from_dlpack` then takes pixels in the host's memory. That it takes a GPU's, only tests/gpu/ shows.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from support import ROOT
from support.mps import install
from support.prometheus import total, wait_for
from triptych.client import DetectionClient
from triptych.serving import fitting
from triptych.serving import server as server_module
from triptych.serving.server import Ports, TritonServer
from triptych_demo.detector.boards import generate

pytestmark = pytest.mark.triton

STAND_IN = f"""
import sys

sys.path.append({str(ROOT / "tests")!r})
from support.gpu_card import open_stand_in
from triptych.vision import gpu

gpu.open_card = open_stand_in
"""


@pytest.fixture
def on_gpu(demo_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TritonServer]:
    """The demo, whose file says that JPEGs are decoded on a GPU."""
    repository = tmp_path / "model_repository"
    shutil.copytree(demo_repository, repository)
    model, config = repository / "preprocess" / "1" / "model.py", repository / "preprocess" / "config.pbtxt"
    model.write_text(STAND_IN + model.read_text())
    text = config.read_text().replace('string_value: "cpu"', 'string_value: "gpu"')
    config.write_text(text.replace("  preferred_batch_size: [1]\n", ""))
    install(tmp_path, monkeypatch)
    monkeypatch.setattr(server_module, "check_gpu_decoding", lambda: None)
    monkeypatch.setattr(fitting, "take_gpu_pixels", lambda _: None)  # the stand-in's are in the host's memory
    with TritonServer(repository, ports=Ports.free(), log_path=tmp_path / "log") as server:
        yield server


def test_both_ways_answer_as_the_cpu_does(on_gpu: TritonServer, demo_server: TritonServer, tmp_path: Path) -> None:
    boards = [generate(1000, number) for number in range(3)]
    Image.fromarray(boards[1].image[..., ::-1]).save(tmp_path / "board.png")
    images = [boards[0].jpeg, b"bad", (tmp_path / "board.png").read_bytes(), boards[2].jpeg]
    with (
        DetectionClient(on_gpu.grpc_address, timeout_s=30) as client,
        DetectionClient(demo_server.grpc_address, timeout_s=30) as by_cpu,
    ):
        answers, expected = client.detect_batch(images), by_cpu.detect_batch(images)
        alone = client.detect(boards[0].jpeg)
        with pytest.raises(Exception, match="cannot be read"):
            client.detect(b"no JPEG")
    assert [answer.error for answer in answers] == [answer.error for answer in expected]
    for answer, wanted in zip([*answers, alone], [*expected, expected[0]], strict=True):
        assert len(answer) == len(wanted)
        np.testing.assert_allclose(answer.boxes_xyxy, wanted.boxes_xyxy, atol=0.5)
        np.testing.assert_array_equal(answer.labels, wanted.labels)
    np.testing.assert_array_equal(alone.boxes_xyxy, answers[0].boxes_xyxy)
    counted = {"total": 6, "gpu_decoded_total": 3, "unreadable_total": 2}
    samples = wait_for(on_gpu, {f"triptych_images_{name}": count for name, count in counted.items()})
    assert total(samples, "triptych_images_unreadable_total", fault="format") == 2


def test_its_processes_share_the_gpu_by_a_service_of_their_own(on_gpu: TritonServer, tmp_path: Path) -> None:
    assert on_gpu.mps == "started for this server"
    pids = [on_gpu.pid, *(process.pid for process in on_gpu.processes())]
    (pipes,) = {psutil.Process(pid).environ()["CUDA_MPS_PIPE_DIRECTORY"] for pid in pids}
    on_gpu.stop()
    assert (tmp_path / "calls").read_text().splitlines() == [f"-d  in {pipes}", f" quit in {pipes}"]
    assert not Path(pipes).exists()
