"""The gate on the real server: a good engine passes, and each planted fault is refused with its stage named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnx.compose
import onnx.helper
import onnx.parser
import pytest
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from support import ROOT
from support.commands import triptych
from triptych.errors import BuildError
from triptych.serving.repository import activate
from triptych.serving.server import Ports, TritonServer
from triptych_build.adapt.adapter import Overrides, adapt_file
from triptych_build.adapt.onnx_file import read_adapted_file
from triptych_build.publish.publish import publish
from triptych_build.publish.target import InstanceGroup
from triptych_build.verify import latency
from triptych_build.verify.datasets import read_dataset
from triptych_build.verify.gate import verify
from triptych_build.verify.limits import Gate
from triptych_build.verify.report import Report
from triptych_build.verify.truth import Dataset
from triptych_demo.detector.boards import Board, coco_document, generate

pytestmark = pytest.mark.triton

DEMO = ROOT / "demo" / "pcb.onnx"
HELD_OUT_SEED = 1000
BOARDS = 48


@pytest.fixture(scope="module", autouse=True)
def _few_latencies() -> Iterator[None]:
    """The percentile itself is not what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "SECONDS", 0.0)
        patch.setattr(latency, "LIMITED_SECONDS", 0.0)
        yield


@pytest.fixture(scope="module")
def boards() -> list[Board]:
    """Enough boards for precision and recall: they show 314 objects."""
    return [generate(HELD_OUT_SEED, index) for index in range(BOARDS)]


@pytest.fixture(scope="module")
def adapted(demo_repository: Path) -> Path:
    """The adapted FP32 demo detector."""
    return demo_repository.parent / "adapted.onnx"


@pytest.fixture(scope="module")
def dataset(boards: list[Board], adapted: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("boards")
    return write_boards(folder, boards, lambda board: board.jpeg, ".jpg", adapted)


def write_boards(
    folder: Path, boards: list[Board], encode: Callable[[Board], bytes], suffix: str, adapted: Path
) -> Dataset:
    (folder / "images").mkdir()
    named = [(f"{number:03d}{suffix}", board) for number, board in enumerate(boards)]
    for name, board in named:
        (folder / "images" / name).write_bytes(encode(board))
    (folder / "instances.json").write_text(json.dumps(coco_document(named)))
    _, record = read_adapted_file(adapted)
    return read_dataset(folder, record.spec.class_names)


def copy_of(repository: Path, directory: Path, *, stage: str = "", before: str = "", after: str = "") -> Path:
    """A copy of a repository, with something replaced in one stage's model.py."""
    copied = directory / "model_repository"
    shutil.copytree(repository, copied, ignore=shutil.ignore_patterns("__pycache__"))
    if stage:
        path = copied / stage / "1" / "model.py"
        code = path.read_text()
        assert code.count(before) == 1
        path.write_text(code.replace(before, after))
    return copied


@contextmanager
def served(repository: Path) -> Iterator[str]:
    with TritonServer(repository, ports=Ports.free(), log_path=repository.parent / "verify.log") as server:
        yield server.grpc_address


def failed(report: Report) -> list[str]:
    return [check.name for check in report.checks if check.outcome == "refused"]


def test_a_good_engine_passes(demo_server: TritonServer, adapted: Path, dataset: Dataset) -> None:
    report = verify(demo_server.grpc_address, adapted, dataset, Gate())
    assert report.outcome == "passed", report.verdict
    assert (report.drifted, report.stages) == (None, ())
    assert report.source is not None
    assert report.source.map50 > 0.9
    assert abs(report.source.map50_95 - report.deployed.map50_95) < 0.002
    assert 0 < report.latency.p50_ms <= report.latency.p95_ms
    assert report.latency.requests == 20
    report.raise_if_not_passed()
    limits = {check["name"]: check["limit"] for check in json.loads(json.dumps(report.to_dict()))["checks"]}
    assert limits["mAP50-95 drop (points)"] == 0.5
    assert report.to_markdown().startswith("# Verification: passed\n")


def test_a_latency_budget_and_images_without_labels(demo_server: TritonServer, adapted: Path, dataset: Dataset) -> None:
    """A budget that nothing can hold fails alone, and blames no stage."""
    unlabelled = Dataset(dataset.images, None)
    report = verify(demo_server.grpc_address, adapted, unlabelled, Gate(p95_ms=0.1))
    assert failed(report) == ["p95 latency (ms)"]
    assert (report.truth, report.source, report.stages, report.drifted) == ("source", None, (), None)
    measured = {check.name: check.measured for check in report.checks}
    assert measured["agreement lost with the source, IoU 0.50 to 0.95 (points)"] < 0.5
    with pytest.raises(BuildError, match=r"^refused: p95 latency \(ms\) is [\d.]+, the limit is 0.1$"):
        report.raise_if_not_passed()


def test_labels_of_another_set(demo_server: TritonServer, adapted: Path, dataset: Dataset) -> None:
    assert dataset.truth is not None
    rows = [row | {"bbox": [0, 0, 5, 5], "area": 25} for row in dataset.truth["annotations"] if row["image_id"] <= 4]
    images = dataset.truth["images"][:4]
    strange = Dataset(dataset.images[:4], dataset.truth | {"images": images, "annotations": rows})
    with pytest.raises(BuildError, match=r"the source itself reaches mAP50 0.000 on these labels"):
        verify(demo_server.grpc_address, adapted, strange, Gate())


def test_a_server_of_another_detector(demo_server: TritonServer, dataset: Dataset, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    adapt_file(DEMO, other, Overrides(names=[f"thing {number}" for number in range(6)]))
    with pytest.raises(BuildError, match=r"has 6 classes, other.onnx .* has 6, with other names; give the ONNX that"):
        verify(demo_server.grpc_address, other, dataset, Gate())
    with pytest.raises(BuildError, match=r"pcb\.onnx is not adapted to the contract"):
        verify(demo_server.grpc_address, DEMO, dataset, Gate())


def red_only(path: Path) -> Path:
    """The demo detector behind a front that shows it the red channel alone."""
    front = onnx.parser.parse_graph(
        "front (float[batch, 3, 640, 640] colours) => (float[batch, 3, 640, 640] red) "
        "{ red = Gather <axis = 1> (colours, first) }"
    )
    front.initializer.append(onnx.numpy_helper.from_array(np.zeros(3, np.int64), "first"))
    demo = onnx.load(DEMO)
    graph = onnx.compose.merge_graphs(front, demo.graph, io_map=[("red", demo.graph.input[0].name)])
    model = onnx.helper.make_model(graph, opset_imports=demo.opset_import, ir_version=demo.ir_version)
    model.metadata_props.extend(demo.metadata_props)
    onnx.save(model, path)
    return path


def red_board(board: Board) -> bytes:
    """A board in red on a flat ground, without loss."""
    blue_green_red = np.full_like(board.image, 90)
    blue_green_red[..., 2] = board.image[..., 0]
    return bytes(cv2.imencode(".png", blue_green_red, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])


@pytest.mark.slow
def test_red_and_blue_swapped(make_repository: Callable[..., Path], boards: list[Board], tmp_path: Path) -> None:
    repository = make_repository(red_only(tmp_path / "red.onnx"))
    dataset = write_boards(tmp_path, boards, red_board, ".png", repository.parent / "adapted.onnx")
    faulty = copy_of(
        repository,
        tmp_path,
        stage="preprocess",
        before='"pixels", made.pixels)',
        after='"pixels", np.ascontiguousarray(made.pixels[..., ::-1]))',
    )
    with served(faulty) as address:
        report = verify(address, repository.parent / "adapted.onnx", dataset, Gate())
    assert report.drifted == "preprocess", report.verdict
    assert report.source is not None
    assert report.source.map50 > 0.9, "the source itself cannot see the boards"
    costs = {drift.stage: drift for drift in report.stages}
    assert costs["preprocess"].loss_points > 50
    assert abs(costs["detector"].loss_points) < 0.5
    assert abs(costs["postprocess"].loss_points) < 0.5
    assert "the channels are in the other order" in costs["preprocess"].evidence
    assert "Restore model_repository/preprocess or its options" in report.verdict


class Noise(CalibrationDataReader):  # type: ignore[misc]
    """Noise, of which no activation becomes as large as a board makes it."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._images = iter([rng.integers(0, 128, (1, 640, 640, 3)).astype(np.uint8) for _ in range(2)])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        image = next(self._images, None)
        return None if image is None else {"pixels": image}


def calibrated_on_noise(adapted: Path, out: Path) -> Path:
    quantize_static(
        adapted,
        out,
        Noise(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv"],
        per_channel=True,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )
    model = onnx.load(out)
    del model.metadata_props[:]
    model.metadata_props.extend(onnx.load(adapted).metadata_props)
    onnx.save(model, out)
    return out


@pytest.mark.slow
def test_calibrated_on_noise(demo_repository: Path, adapted: Path, boards: list[Board], tmp_path: Path) -> None:
    """OpenVINO runs int8 with kernels that the CPU has, so how much is lost is not the same everywhere."""
    dataset = write_boards(tmp_path, boards, lambda board: board.jpeg, ".jpg", adapted)
    repository = copy_of(demo_repository, tmp_path)
    quantized = calibrated_on_noise(adapted, tmp_path / "int8.onnx")
    group = InstanceGroup(count=2, threads=1)
    activate(repository, int(publish(quantized, "openvino", repository, group).name))
    with served(repository) as address:
        report = verify(address, adapted, dataset, Gate.for_precision("int8"), precision="int8")
    assert report.drifted == "detector", report.verdict
    costs = {drift.stage: drift.loss_points for drift in report.stages}
    assert 5 < costs["detector"] < 60, "hurt, not dead: the gate must find the stage in this case too"
    assert abs(costs["preprocess"]) < 0.5
    assert abs(costs["postprocess"]) < 0.5
    for way_back in ("Calibrate with more images", "--exclude", "the next precision up, fp16"):
        assert way_back in report.verdict


SHIFT = {
    "stage": "postprocess",
    "before": 'pb_utils.Tensor("BOXES", boxes)',
    "after": 'pb_utils.Tensor("BOXES", boxes + 12)',
}


def test_boxes_shifted_from_the_command_line(
    demo_repository: Path, adapted: Path, dataset: Dataset, tmp_path: Path
) -> None:
    repository = copy_of(demo_repository, tmp_path, **SHIFT)
    done = triptych(
        *("verify", adapted, "--model-repository", repository),
        *("--data", dataset.images[0].parent.parent, "--out", tmp_path / "report"),
    )
    assert done.returncode == 1, done.stderr
    assert "The stage that drifted is postprocess" in done.stderr
    assert "from the same candidates its boxes are up to 12.0 px off" in done.stderr
    assert "Traceback" not in done.stderr
    report: dict[str, Any] = json.loads((tmp_path / "report" / "report.json").read_text())
    assert (report["passed"], report["drifted"]) == (False, "postprocess")
    costs = {drift["stage"]: drift["loss_points"] for drift in report["stages"]}
    assert costs["postprocess"] > 50
    assert abs(costs["preprocess"]) < 0.5
    assert abs(costs["detector"]) < 0.5
    page = (tmp_path / "report" / "report.md").read_text()
    assert page.startswith("# Verification: refused\n")
    assert "Restore model_repository/postprocess" in page


def test_boxes_that_change_and_batches_that_mix(
    demo_repository: Path, adapted: Path, dataset: Dataset, tmp_path: Path
) -> None:
    """A jitter of a thousandth of a pixel, and a batch's boxes in the wrong order: accuracy sees neither."""
    jitter = 'pb_utils.Tensor("BOXES", (boxes + __import__("time").perf_counter() % 1 / 1000).astype("float32")[::-1])'
    repository = copy_of(demo_repository, tmp_path, **SHIFT | {"after": jitter})
    with served(repository) as address:
        report = verify(address, adapted, Dataset(dataset.images, None), Gate())
    assert failed(report) == [
        "change when sent again (images)",
        "agreement of a batch with its images alone, IoU 0.50 to 0.95",
    ]
    assert not report.stages
