"""What Triton's log says, as it was seen to say it."""

from __future__ import annotations

from pathlib import Path

import pytest

from triptych.serving import log as server_log

NO_GPU = """\
W1121 08:19:01.152328 6778 pinned_memory_manager.cc:273] "Unable to allocate pinned system memory, pinned memory pool \
will not be available: CUDA driver version is insufficient for CUDA runtime version"
I1121 08:19:01.152614 6778 cuda_memory_manager.cc:117] "CUDA memory pool disabled"
E1121 08:19:01.152758 6778 server.cc:241] "CudaDriverHelper has not been initialized."
E1121 08:19:03.305778 6778 ensemble_scheduler.cc:1468] "unable to create stream for detection: CUDA driver version is \
insufficient for CUDA runtime version"
"""

LOAD_ERRORS = r"""
I1121 08:24:20.936083 7546 model_lifecycle.cc:472] "loading: preprocess:1"
I1121 08:24:20.937398 7546 model_lifecycle.cc:472] "loading: detector:1"
I1121 08:24:21.120423 7546 model_lifecycle.cc:839] "successfully loaded 'detector'"
I1121 08:24:21.155678 7546 pb_stub.cc:366] "Failed to initialize Python stub: ModuleNotFoundError: No module named 'x'"
E1121 08:24:21.304139 7546 backend_model.cc:692] "ERROR: Failed to create instance: ModuleNotFoundError: No module \
named 'x'\n\nAt:\n  /r/preprocess/1/model.py(7): initialize\n"
E1121 08:24:21.304226 7546 model_lifecycle.cc:642] "failed to load 'preprocess' version 1: Internal: \
ModuleNotFoundError: No module named 'x'\n\nAt:\n  /r/preprocess/1/model.py(7): initialize\n"
I1121 08:24:21.304246 7546 model_lifecycle.cc:777] "failed to load 'preprocess'"
E1121 08:24:21.306409 7546 model_repository_manager.cc:703] "Invalid argument: ensemble 'detection' depends on \
'preprocess' which has no loaded version. Model 'preprocess' loading failed with error: version 1 is at UNAVAILABLE \
state: Internal: ModuleNotFoundError: No module named 'x'\n\nAt:\n  /r/preprocess/1/model.py(7): initialize\n;"
""".replace("\\\n", "")

PORT_IN_USE = NO_GPU + (
    'E1121 08:24:58.223204 8865 main.cc:245] "failed to start GRPC service: Unavailable - '
    "Socket '127.0.0.1:18401' already in use \"\n"
)

ENSEMBLE = (
    "load failed for model 'detection': ensemble 'detection' depends on 'preprocess' which has no loaded version. "
    "Model 'preprocess' loading failed with error: "
)


@pytest.mark.parametrize(
    ("log", "lines"),
    [
        ("", []),
        (NO_GPU, []),
        (LOAD_ERRORS, ["ModuleNotFoundError: No module named 'x'"]),
        (
            'Traceback (most recent call last):\n  File "a.py", line 1\nValueError: no weights\n',
            ["ValueError: no weights"],
        ),
        ("Signal (11) received.\n 0# 0x000055765464252D in tritonserver\n", ["Signal (11) received."]),
        (
            "stub: error while loading shared libraries: libpython3.11.so.1.0: cannot open\n"
            "E1121 08:24:22.875760 75 backend_model.cc:692] \"ERROR: Stub process 'd_0_0' is not healthy.\"\n",
            ["stub: error while loading shared libraries: libpython3.11.so.1.0: cannot open"],
        ),
        ("a model printed this Error\nI am fine\n", []),
    ],
)
def test_error_lines(log: str, lines: list[str]) -> None:
    assert server_log.error_lines(log) == lines


def test_error_lines_are_the_last_ones_without_repetition() -> None:
    log = "".join(f"ValueError: {number}\n" for number in (1, 2, 3, 4, 3))
    assert server_log.error_lines(log, limit=2) == ["ValueError: 4", "ValueError: 3"]
    assert server_log.last_words(log) == "; the last errors in its log: ValueError: 2 | ValueError: 4 | ValueError: 3"


def test_no_last_words_of_a_quiet_log() -> None:
    assert server_log.last_words(NO_GPU) == ""


def test_port_in_use() -> None:
    assert server_log.port_in_use(PORT_IN_USE) == 18401
    assert server_log.port_in_use(NO_GPU) is None


def test_still_loading() -> None:
    assert server_log.still_loading(LOAD_ERRORS) == []
    assert server_log.still_loading("\n".join(LOAD_ERRORS.splitlines()[:4])) == ["preprocess"]


def test_read_tail(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert server_log.read_tail(path) == ""
    path.write_text("0123456789")
    assert server_log.read_tail(path, limit=4) == "6789"
    assert server_log.read_tail(path) == "0123456789"


@pytest.mark.parametrize(
    ("details", "message"),
    [
        (
            f"{ENSEMBLE}version 1 is at UNAVAILABLE state: Internal: ValueError: no\n such weights\n\nAt:\n"
            "  /r/preprocess/1/model.py(7): initialize\n;",
            "preprocess did not load: ValueError: no such weights (/r/preprocess/1/model.py, line 7)",
        ),
        (
            f"{ENSEMBLE}version 1 is at UNAVAILABLE state: Internal: SyntaxError: invalid syntax (model.py, line 7);",
            "preprocess did not load: SyntaxError: invalid syntax (model.py, line 7)",
        ),
        (
            f"{ENSEMBLE}version 1 is at UNAVAILABLE state: Internal: Stub process 'preprocess_0_0' is not healthy.;",
            "preprocess did not load: its process died",
        ),
        (
            f"{ENSEMBLE}at least one version must be available under the version policy of model 'preprocess'",
            "preprocess did not load: at least one version must be available under the version policy of model "
            "'preprocess'",
        ),
        (
            "load failed for model 'detector': version 3 is at UNAVAILABLE state: Invalid argument: no such engine;",
            "detector did not load: no such engine",
        ),
        ("failed to poll from model repository", "detection did not load: failed to poll from model repository"),
    ],
)
def test_load_failure(details: str, message: str) -> None:
    assert str(server_log.load_failure("detection", details)) == message


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (1, "ended with exit status 1"),
        (-9, "was killed (SIGKILL), by somebody or by the kernel for lack of memory"),
        (-11, "crashed (SIGSEGV)"),
        (-15, "was ended by SIGTERM"),
        (-63, "was ended by signal 63"),
    ],
)
def test_describe_exit(returncode: int, words: str) -> None:
    assert server_log.describe_exit(returncode) == words


def test_how_it_ended() -> None:
    assert server_log.describe_end(-11, "ValueError: no weights\n", Path("/log")) == (
        "the server crashed (SIGSEGV); the last errors in its log: ValueError: no weights; the whole log is /log"
    )


def test_not_ready_in_time() -> None:
    assert server_log.describe_timeout(2, "\n".join(LOAD_ERRORS.splitlines()[:4]), Path("/log")) == (
        "the server was not ready within 2 s (still loading: preprocess); "
        "allow it longer with --ready-timeout-s; the whole log is /log"
    )
