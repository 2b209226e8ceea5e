"""Files and configurations that are not what was published, or do not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.doctor_facts import CONFIG, PIP, SERVER, config, onnx_model, plan, refusals, warnings
from triptych.serving.doctor import PublishedVersion, examine


@pytest.mark.parametrize(
    ("published", "message"),
    [
        (replace(plan(), sha256={}), "its model.plan is missing"),
        (
            replace(plan(), sha256={"model.plan": "bb"}, sizes={"model.plan": 99}),
            "its model.plan is not the file that was published (99 bytes of 123)",
        ),
        (
            replace(onnx_model(), sha256={"model.onnx": "bb"}),
            "its model.onnx is not the file that was published; publish",
        ),
        (replace(onnx_model(), sha256={"model.plan": "aa"}), "its model.onnx is missing"),
        (
            replace(plan(), config=None, config_error="config.pbtxt is not a model configuration"),
            "is not a model configuration; publish it again",
        ),
        (replace(plan(), config=config(CONFIG.replace("versions: 1", "versions: 2"))), "serves another version than 1"),
        (
            replace(plan(), config=config(CONFIG.replace("640, 640", "320, 640"))),
            "says pixels [320, 640, 3], but the model has [640, 640, 3]",
        ),
        (
            replace(plan(), config=config(CONFIG.replace('"pixels"', '"pixelz"'))),
            "its config.pbtxt does not say pixels, but the model has it",
        ),
        (
            replace(plan(), config=config(CONFIG.replace("300, 6", "300, 7"))),
            "says candidates [300, 7], but the model has [300, 6]",
        ),
        (
            replace(onnx_model(), config=config(CONFIG.replace("300, 6", "100, 6"))),
            "says candidates [100, 6], but the model has [300, 6]",
        ),
        (plan(profiles=[{"min": 1, "opt": 4, "max": 8}]), "forms batches of up to 16, but its engine takes 8 at most"),
        (
            plan(profiles=[], inputs=[{"name": "pixels", "dtype": "uint8", "shape": [1, 640, 640, 3]}]),
            "but its engine takes 1 at most",
        ),
        (
            replace(plan(), config=config(CONFIG.replace("16", "8"))),
            "forms batches of up to 8, and the ensemble brings 16",
        ),
    ],
)
def test_a_version_that_is_not_what_was_published(published: PublishedVersion, message: str) -> None:
    deployment = SERVER if published.manifest["target"] == "tensorrt" else PIP
    assert any(message in text for text in refusals(deployment, published)), refusals(deployment, published)
    assert "loads" not in {finding.id for finding in examine(deployment, [published])}


@pytest.mark.parametrize(
    ("published", "message"),
    [
        (replace(onnx_model(), manifest={}), "it has no manifest that can be read"),
        (onnx_model("abacus"), "its target 'abacus' is not known"),
        (plan(profiles=[{"min": 4, "opt": 8, "max": 16}]), "takes batches of 4 and more, so that a single image fails"),
    ],
)
def test_what_may_be_wrong_is_a_warning(published: PublishedVersion, message: str) -> None:
    deployment = SERVER if published.manifest.get("target") == "tensorrt" else PIP
    assert any(message in text for text in warnings(deployment, published))
    assert not refusals(deployment, published)


def test_the_largest_of_several_profiles_counts() -> None:
    assert not refusals(SERVER, plan(profiles=[{"min": 1, "opt": 1, "max": 1}, {"min": 1, "opt": 8, "max": 16}]))


def test_open_sizes_fit_any() -> None:
    shape = [-1, -1, -1, 3]
    assert not refusals(SERVER, plan(inputs=[{"name": "pixels", "dtype": "uint8", "shape": shape}]))
