#!/bin/sh
# Writes the secrets that docker-compose.yml requires into .env: random ones, each that is not there yet, readable by you alone.
set -eu
umask 077
cd "$(dirname "$0")/../.."
touch .env
chmod 600 .env
# The last line of a file that was edited may have no end.
[ -z "$(tail -c 1 .env)" ] || echo >>.env
for name in TWILIO_EDGE_TOKEN POSTGRES_PASSWORD REDIS_PASSWORD; do
    grep -q "^$name=." .env && continue
    printf '%s=%s\n' "$name" "$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')" >>.env
done
