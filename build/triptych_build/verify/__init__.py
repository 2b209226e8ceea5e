"""The gate: accuracy, determinism and latency through the deployed ensemble, against the FP32 source.

`datasets` reads labels (`coco`, `yolo`) into one `truth`; `gate` measures, `metrics` and `limits` judge, and where
accuracy fails `drift` puts each `deployed` stage alone into the `reference` to find the one to
blame. `report` puts it into words.
"""
