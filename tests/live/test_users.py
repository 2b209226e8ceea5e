"""What users send and when: shapes, payloads, and the loops against the real server."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.steady import SERVICE_MS, measured_in_peace, steady_repository
from triptych.errors import ContractError, ImageError
from triptych.measure import run_file
from triptych.serving.server import Ports, TritonServer
from triptych.vision.decode import decode
from triptych_loadtest.payloads import parse_size, payloads, read_images, split_sizes
from triptych_loadtest.shapes import SHAPES, SPIKE, SPIKE_BASE, STEPS, due_after, share, users_at

TIMES = np.linspace(-0.1, 1.1, 241)


def shares(shape: str) -> np.ndarray:
    return np.array([share(shape, at) for at in TIMES])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_a_share_and_reaches_the_full_load(shape):
    found = shares(shape)
    assert found.min() >= 0
    assert found.max() == 1


def test_a_ramp_grows_evenly():
    assert share("ramp", 0) == 0
    assert np.all(np.diff(shares("ramp")) >= 0)
    assert [share("ramp", at) for at in (0.25, 0.5, 1)] == [0.25, 0.5, 1]


def test_steps_are_five_of_one_height_and_length():
    levels, counts = np.unique(shares("step")[(TIMES >= 0) & (TIMES < 0.9999)].round(6), return_counts=True)
    assert levels == pytest.approx(np.arange(1, STEPS + 1) / STEPS)
    assert np.ptp(counts) <= 1
    assert np.all(np.diff(shares("step")) >= 0)


def test_a_spike_goes_back_to_its_base():
    first, last = SPIKE
    inside = [at for at in TIMES if first + 1e-9 < at < last - 1e-9]
    outside = [at for at in TIMES if not first - 1e-9 <= at <= last + 1e-9]
    assert {share("spike", at) for at in inside} == {1.0}
    assert {share("spike", at) for at in outside} == {SPIKE_BASE}


def test_a_soak_rises_soon_and_holds():
    assert share("soak", 0) == 0
    assert set(shares("soak")[TIMES >= 0.06]) == {1.0}


def test_there_is_always_a_user():
    assert [users_at("ramp", at, 5) for at in (0, 0.5, 1)] == [1, 2, 5]


@given(st.sampled_from(sorted(SHAPES)), st.floats(1, 200), st.floats(1, 20))
def test_as_many_requests_come_due_as_the_rate_has_in_it(shape, rate, seconds):
    expected = rate * seconds * np.mean([share(shape, at) for at in np.linspace(0, 1, 2001)])
    due, count = 0.0, 0
    while (due := due_after(due, 1, lambda at: rate * share(shape, at / seconds))) <= seconds:
        count += 1
    assert count == pytest.approx(expected, abs=1.1 + rate * 0.06)


@given(st.floats(0, 100), st.floats(0.01, 1000))
def test_at_a_constant_rate_requests_are_evenly_spaced(start, rate):
    assert due_after(start, 1, lambda _at: rate) == pytest.approx(start + 1 / rate, rel=1e-6)


def encoded(width: int, height: int) -> bytes:
    return cv2.imencode(".png", np.full((height, width, 3), 99, np.uint8))[1].tobytes()


def test_sizes_are_real_and_in_the_name():
    made = payloads([encoded(100, 80), encoded(60, 90)], sizes=["640x480", "32x16"])
    assert [payload.name for payload in made] == ["detect 640x480", "detect 32x16"] * 2
    for payload in made:
        (image,) = payload.images
        height, width, _ = decode(image).shape
        assert payload.name == f"detect {width}x{height}"


def test_images_are_sent_as_they_are_without_sizes():
    images = [encoded(4, 4), b"whatever it is"]
    assert [(payload.name, payload.images) for payload in payloads(images)] == [
        ("detect", (image,)) for image in images
    ]


def test_batches_wrap_around():
    made = payloads([b"a", b"b", b"c"], batch=2)
    assert [(payload.name, payload.images) for payload in made] == [
        ("detect x2", (b"a", b"b")),
        ("detect x2", (b"c", b"a")),
    ]
    assert payloads([b"a"], batch=3)[0].images == (b"a", b"a", b"a")
    assert payloads([encoded(9, 9)], 2, ["8x4"])[0].name == "detect 8x4 x2"


@pytest.mark.parametrize("text", ["", "640", "640x", "x480", "0x10", "10x0", "-1x5", "640x480x3", "9999x9999", "６x４"])
def test_a_size_that_is_none(text):
    with pytest.raises(ContractError, match="a size must be WIDTHxHEIGHT in pixels"):
        parse_size(text)


@pytest.mark.parametrize(
    ("given", "sizes"),
    [(None, []), ("", []), ([""], []), ("1x2, 3x4", ["1x2", "3x4"]), (["1x2 3x4"], ["1x2", "3x4"]), (["1x2"], ["1x2"])],
)
def test_sizes_from_arguments_or_from_a_form(given, sizes):
    assert split_sizes(given) == sizes


@pytest.mark.parametrize("batch", [0, -1, 17])
def test_a_batch_that_the_server_does_not_take(batch):
    with pytest.raises(ContractError, match="1 to 16 images"):
        payloads([b"a"], batch)


def test_an_image_that_cannot_be_scaled_is_named():
    with pytest.raises(ImageError, match="image 2 of 2, by name, cannot be scaled"):
        payloads([encoded(4, 4), b"no image"], sizes=["8x8"])


def test_a_directory_without_images(tmp_path):
    with pytest.raises(ImageError, match="there are no images in"):
        read_images(tmp_path)
    with pytest.raises(ImageError, match="there is no directory"):
        read_images(tmp_path / "missing")


@pytest.fixture(scope="module")
def address(make_repository):
    repository = steady_repository(make_repository)
    with TritonServer(repository, ports=Ports.free(), log_path=repository.parent / "log") as server:
        yield server.grpc_address


@pytest.fixture
def measure(address, images, loadtest, tmp_path):
    def run(*arguments: object) -> run_file.Run:
        out = tmp_path / "run.json"
        done = loadtest("--address", address, "--images", images, "--warmup", 0.5, "--out", out, *arguments)
        assert out.exists(), done.stdout + done.stderr
        return run_file.read(out)

    return run


@pytest.mark.triton
def test_a_slow_camera_loses_no_frame(measure):
    run = measure("--users", 1, "--fps", 5, "--duration", 4)
    assert run.workload.loop == "camera"
    assert run.client.latencies.count == pytest.approx(20, abs=1)
    # A machine that stands still for 400 ms may lose one; a camera that waits in vain would lose every other.
    assert run.client.failed <= 1
    assert run.client.latencies.percentile_ms(50) < 200


@pytest.mark.triton
def test_a_camera_that_is_faster_than_the_answers_loses_frames(measure):
    run = measure("--users", 1, "--fps", 100, "--duration", 4)
    sent, dropped = run.client.latencies.count, run.client.failures["FrameDropped"].count
    assert list(run.client.failures) == ["FrameDropped"]
    assert sent + dropped == pytest.approx(400, abs=8), "every frame has one of two fates"
    assert dropped > sent
    service_ms = run.server["detection"].mean_ms("total")
    assert service_ms > SERVICE_MS
    # One at a time, and each begins at once with the newest frame: nothing but the service bounds the rate.
    assert 0.7 * 1000 / service_ms < run.client.rate_per_s < 1000 / service_ms
    # Latencies count from when a frame was due, at most a period before it was sent.
    assert run.client.latencies.mean_ms > service_ms + 2
    assert "the answer to an earlier frame had not come after 10 ms" in run.client.failures["FrameDropped"].example


@pytest.mark.triton
def test_an_open_loop_in_steps(measure):
    run = measure("--shape", "step", "--rate", 20, "--duration", 5, "--intervals", 5)
    counts = [interval.requests for interval in run.intervals]
    assert counts == pytest.approx([4, 8, 12, 16, 20], abs=2)
    assert sum(counts) == pytest.approx(60, abs=2)


@pytest.mark.triton
def test_a_closed_loop_that_ramps_has_more_users_towards_its_end(measure):
    run = measure("--shape", "ramp", "--users", 6, "--duration", 5, "--intervals", 5)
    # The detector has two instances, so the first users raise the rate, and the later ones wait.
    assert run.intervals[-1].p50_ms > 1.5 * run.intervals[0].p50_ms
    assert run.intervals[-1].requests > 1.2 * run.intervals[0].requests


@pytest.mark.triton
def test_a_mix_of_sizes_in_batches(measure):
    run = measure("--users", 1, "--duration", 2, "--sizes", "640x480", "64x48", "--batch", 2)
    counts = {name: latencies.count for name, latencies in run.client.by_request.items()}
    assert set(counts) == {"detect 640x480 x2", "detect 64x48 x2"}
    assert abs(counts["detect 640x480 x2"] - counts["detect 64x48 x2"]) <= 1
    assert run.server["detection"].inferences == 2 * run.client.latencies.count


@pytest.mark.triton
def test_a_size_that_is_none_is_one_sentence(address, images, loadtest):
    done = loadtest("--address", address, "--images", images, "--sizes", "large")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "a size must be WIDTHxHEIGHT" in done.stderr


@pytest.mark.triton
@pytest.mark.slow
def test_several_processes_see_what_one_sees(measure):
    """The same rate from one process and from a master with two workers: p50 within 5%."""
    load = ("--rate", 15, "--duration", 5, "--no-traces")

    def check() -> None:
        one, two = (measure(*load, "--processes", processes).client for processes in (1, 2))
        for each in (one, two):
            assert each.latencies.count == pytest.approx(75, abs=6)
            assert not each.failures
        assert two.latencies.percentile_ms(50) == pytest.approx(one.latencies.percentile_ms(50), rel=0.05)

    measured_in_peace(check)
