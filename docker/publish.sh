#!/bin/sh
# Builds and publishes a detector, and has every server that runs switch over to it.
#   docker compose run --rm builder /in/MODEL.onnx [options of `triptych build`]
set -eu
served() {
  triptych models --json 2>/dev/null | python3 -c 'import json, sys; print(*(v["version"] for v in json.load(sys.stdin) if v["served"]))' 2>/dev/null || true
}
before=$(served)
triptych build "$@"
version=$(served)
addresses=$(getent ahostsv4 triton | cut -d ' ' -f 1 | sort -u) || true
# A server that does not take the version leaves the one from before, for its next start too.
[ -z "$addresses" ] || [ -z "$before" ] || triptych activate "$before"
for address in $addresses; do
  triptych activate "$version" --address "$address:8001"
done
