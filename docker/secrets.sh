#!/bin/sh
# Makes what the services need to know of each other, once, for development: an authority, a server's certificate, the
# key for loading models, Grafana's password. In production, put your own files there under the same names.
set -eu
cd "$(dirname "$0")/.."
directory=${1:-secrets}
mkdir -p "$directory"
docker compose --profile cpu build --quiet triton-cpu
# Docker hands a container a secret's file as it is. So its owner must be the services' user, and root makes it so.
docker run --rm --interactive --user 0 --volume "$(readlink -f "$directory"):/secrets" --workdir /secrets \
  "$(docker compose config --images triton-cpu | sort -u)" sh -eu <<'IN'
[ -f server.pem ] || triptych certificates . --host envoy,triton
[ -f models.key ] || openssl rand -hex 32 > models.key
[ -f grafana.password ] || openssl rand -hex 16 > grafana.password
chown 10001:10001 ./*
chmod 444 ./*.pem
chmod 440 ./*.key grafana.password
IN
