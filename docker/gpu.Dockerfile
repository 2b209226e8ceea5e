# NVIDIA's Triton with what our stages need, and the Python API of the very TensorRT that it serves with.
ARG TRITON_IMAGE
FROM ${TRITON_IMAGE} AS source
WORKDIR /source
COPY . .
# With Triton from pip, in which the gate measures an engine before the container's own Triton serves it.
RUN python3 docker/requirements.py openvino > /requirements.txt \
    && pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM ${TRITON_IMAGE}
ARG TENSORRT_VERSION
ARG TRITON_VERSION
USER root
RUN useradd --create-home --uid 10001 triptych
# The stages' processes take their packages from the first python3 on PATH. These are its own, not a distribution's.
ENV PATH=/opt/triptych/bin:$PATH
COPY --from=source /requirements.txt /
# The bindings alone: the library is the server's, so an engine fits the server that loads it.
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/triptych \
    && pip install --no-cache-dir -r /requirements.txt "cuda-bindings>=12.6,<14" \
    && pip install --no-cache-dir --no-deps "tensorrt-cu13-bindings==${TENSORRT_VERSION}"
COPY --from=source /wheels /wheels
RUN pip install --no-cache-dir --no-deps /wheels/*.whl
COPY docker/publish.sh /usr/local/bin/publish
COPY docker/triton.sh /usr/local/bin/triton
WORKDIR /srv/triptych
RUN mkdir .triptych && chown triptych: . .triptych
USER triptych
RUN triptych init . && python3 -m triptych.serving.queues model_repository "${TRITON_VERSION}"
# As `triptych serve` sets it: freed image buffers stay with the process. Getting each anew costs a page fault every 4 KB.
ENV MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=1073741824 MALLOC_TOP_PAD_=67108864
ENTRYPOINT []
CMD ["triton"]
