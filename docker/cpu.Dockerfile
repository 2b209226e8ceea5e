# Triton from pip with the demo's detector, on CPUs: `triptych serve`. The same image builds models and makes load.
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE} AS source
WORKDIR /source
COPY . .
RUN python docker/requirements.py > /requirements.txt \
    && pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM ${PYTHON_IMAGE}
# OpenVINO wants a user who is in passwd and has a home.
RUN useradd --create-home --uid 10001 triptych
COPY --from=source /requirements.txt /
RUN pip install --no-cache-dir -r /requirements.txt
COPY --from=source /wheels /wheels
RUN pip install --no-cache-dir --no-deps /wheels/*.whl
COPY docker/publish.sh /usr/local/bin/publish
WORKDIR /srv/triptych
RUN mkdir .triptych && chown triptych: . .triptych
USER triptych
# What a new volume for the detector begins with.
RUN triptych init . \
    && triptych build "$(python -c 'from triptych_demo.demo import model_path; print(model_path())')" --cache /tmp/cache \
    && rm -rf /tmp/cache
CMD ["triptych", "serve"]
