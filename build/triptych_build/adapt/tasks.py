"""Models of other tasks than detection, by their metadata or by the shapes of their outputs."""

from __future__ import annotations

from triptych_build.adapt.heads import Source

TASKS = {
    "segment": "a segmentation model (masks)",
    "semantic": "a semantic segmentation model (a class for each pixel)",
    "pose": "a pose model (key points)",
    "obb": "a model of oriented boxes (angles)",
    "classify": "a classification model (no boxes)",
    "depth": "a depth model (no boxes)",
}
"""What Ultralytics writes into the metadata as `task`, in words."""


def other_task(source: Source, task: str) -> str:
    """Return in words what a model is that does not give boxes alone; empty if it may be a detector."""
    outputs = source.outputs
    if task and task != "detect":
        return TASKS.get(task, f"a model for {task}")
    ranks = [len(output.shape) for output in outputs]
    names = " ".join(output.name.lower() for output in outputs)
    if "mask" in names or (4 in ranks and 3 in ranks):
        return f"{TASKS['segment']}, by its outputs"
    if ranks == [3] and (outputs[0].shape[1] or 0) < (outputs[0].shape[2] or 0) and {"Sin", "Cos"} <= source.operators:
        return f"{TASKS['obb']}, by its output and operators"
    if ranks == [2] and (outputs[0].shape[1] or 0) > 7:
        return f"{TASKS['classify']}, by its output"
    if ranks and min(ranks) >= 4:
        return (
            "feature maps that nothing has decoded, by its outputs (export with the decode inside, as its family does "
            "by default)"
            if len(ranks) > 1
            else f"{TASKS['semantic']}, or a feature map that nothing has decoded, by its output"
        )
    return ""
