#!/bin/sh
# Adds the missing secrets of docker-compose.yml to .env: random values, readable by you only.
set -eu
umask 077
cd "$(dirname "$0")/../.."
touch .env
chmod 600 .env
# An edited file may lack the line break at its end.
[ -z "$(tail -c 1 .env)" ] || echo >>.env
for name in TWILIO_EDGE_TOKEN POSTGRES_PASSWORD REDIS_PASSWORD; do
    grep -q "^$name=." .env && continue
    printf '%s=%s\n' "$name" "$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')" >>.env
done
