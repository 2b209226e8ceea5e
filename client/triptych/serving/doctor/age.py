"""What an older Triptych published or laid out, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tritonclient.grpc import model_config_pb2

from triptych.model_config import names_itself
from triptych.serving.doctor.facts import Deployment, PublishedVersion
from triptych.serving.doctor.findings import Finding, refusal, warning


def check_age(version: PublishedVersion, deployment: Deployment) -> Iterator[Finding]:
    """Yield what a version lacks because an older Triptych published it."""
    config = version.config
    if config is None or not version.manifest:
        return
    lacks = []
    if config.backend == "python" and not names_itself(config):
        lacks.append("its answers do not say whose class names they mean")
    # `triptych serve` limits the queue itself.
    if not deployment.is_pip and not config.dynamic_batching.default_queue_policy.max_queue_size:
        lacks.append("its queue has no limit, so that under overload every request waits until nobody wants it")
    if lacks:
        yield warning(
            "published-by-older",
            f"an older Triptych published it: {', and '.join(lacks)}",
            "publish the same model again, which writes its files anew",
        )


def check_layout(
    found: Mapping[str, model_config_pb2.ModelConfig], laid_out: Mapping[str, model_config_pb2.ModelConfig]
) -> Iterator[Finding]:
    """Yield each model around the detector whose tensors are those of an older release.

    Args:
        found: the configurations in the repository, by the model's name.
        laid_out: those that `triptych init` lays out, by the model's name.
    """
    for name, expected in laid_out.items():
        here = _tensors(found[name]) if name in found else {}
        other = [tensor for tensor, dims in _tensors(expected).items() if here and here.get(tensor) != dims]
        if other:
            yield refusal(
                "layout-of-older",
                f"an older Triptych laid out {name}: its {', '.join(other)} are not those of this release",
                f"move model_repository/{name} away, and `triptych init DIR` lays out what is missing in DIR",
            )


def _tensors(config: model_config_pb2.ModelConfig) -> dict[str, list[int]]:
    """Return the dims of every input and output, by name."""
    return {tensor.name: list(tensor.dims) for tensor in (*config.input, *config.output)}
