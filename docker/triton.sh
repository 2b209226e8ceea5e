#!/bin/sh
# Triton of the container, as `triptych serve` starts the one from pip: TLS, and a key for whoever loads models.
set -eu
exec tritonserver \
  --model-repository=/srv/triptych/model_repository \
  --model-control-mode=explicit --load-model=detection --disable-auto-complete-config \
  --allow-http=false \
  --grpc-address=0.0.0.0 --grpc-port=8001 \
  --grpc-use-ssl=true --grpc-server-cert=/run/secrets/server.pem --grpc-server-key=/run/secrets/server.key \
  --grpc-restricted-protocol="model-repository,shared-memory,trace,logging:triptych-key=$(cat /run/secrets/models.key)" \
  --metrics-address=0.0.0.0 --metrics-port=8002 --metrics-interval-ms=1000 \
  --metrics-config=histogram_latencies=true \
  --trace-config=triton,file=/tmp/trace --trace-config=level=OFF --trace-config=rate=1000 \
  --exit-timeout-secs="${EXIT_TIMEOUT_S}"
