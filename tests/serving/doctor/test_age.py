"""What older releases published and laid out."""

from __future__ import annotations

from dataclasses import replace

from support.doctor_facts import CONFIG, PIP, SERVER, config, find, onnx_model, plan
from triptych.serving.doctor import examine
from triptych.serving.doctor.age import check_layout
from triptych.serving.template import configs


def ids(*found: object) -> set[str]:
    return {finding.id for finding in examine(*found)}  # type: ignore[arg-type]


def test_a_detector_of_six_columns_does_not_name_its_classes() -> None:
    six = replace(onnx_model(), config=config(f'{CONFIG} backend: "python"'))
    old = find(examine(PIP, [six]), "published-by-older")
    assert old.severity == "warning"
    assert "its answers do not say whose class names they mean" in old.text
    assert old.advice == "publish the same model again, which writes its files anew"
    seven = replace(six, config=config(f'{CONFIG} backend: "python"'.replace("300, 6", "300, 7")))
    assert "published-by-older" not in ids(PIP, [seven])


def test_a_queue_without_a_limit_matters_where_nobody_sets_one() -> None:
    endless = CONFIG.replace("default_queue_policy { max_queue_size: 512 }", "")
    assert (
        "its queue has no limit"
        in find(examine(SERVER, [replace(plan(), config=config(endless))]), "published-by-older").text
    )
    assert "published-by-older" not in ids(PIP, [replace(onnx_model(), config=config(endless))])


def test_what_is_laid_out_now_is_of_this_release() -> None:
    assert not list(check_layout(configs(), configs()))


def test_an_output_that_was_not_there_before_is_named() -> None:
    old = configs()
    kept = [tensor for tensor in old["detection"].output if tensor.name not in ("NAMES", "TRUNCATED")]
    del old["detection"].output[:]
    old["detection"].output.extend(kept)
    (finding,) = check_layout(old, configs())
    assert finding.text == "an older Triptych laid out detection: its TRUNCATED, NAMES are not those of this release"
    assert finding.severity == "will not load"


def test_a_model_that_cannot_be_read_and_outputs_that_somebody_added_are_not_old() -> None:
    more = configs()
    more["detection"].output.add(name="MINE", dims=[1])
    del more["preprocess"]
    assert not list(check_layout(more, configs()))
