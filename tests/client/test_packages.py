"""The command that installs a missing optional package."""

from __future__ import annotations

import shlex

import pytest
from packaging.requirements import Requirement

from triptych.packages import install_command


@pytest.mark.parametrize(
    ("extra", "packages"),
    [
        ("rtx", {"tensorrt-rtx-cu12-libs", "tensorrt-rtx-cu12-bindings"}),
        ("tensorrt", {"tensorrt", "cuda-bindings"}),
        ("torch", {"torch", "onnx2torch"}),
    ],
)
def test_the_command_names_the_packages_and_their_versions(extra: str, packages: set[str]) -> None:
    pip, install, *requirements = map(str, shlex.split(install_command(extra)))
    assert (pip, install) == ("pip", "install")
    parsed = [Requirement(requirement) for requirement in requirements]
    assert {requirement.name for requirement in parsed} == packages
    assert all(requirement.specifier and not requirement.marker for requirement in parsed)


def test_an_extra_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="there is no extra 'gpu'"):
        install_command("gpu")
