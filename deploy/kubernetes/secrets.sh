#!/bin/sh
# Prints the namespace and the Secrets that tryout.yaml needs, with random passwords, new ones each time:
#
#   sh deploy/kubernetes/secrets.sh | kubectl create -f -
#
# `create` refuses an existing Secret, so the passwords of stores with data stay unchanged. The account is the simulator's.
set -eu
random() {
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}
token=$(random)
postgresql=$(random)
redis=$(random)
for secret in "$token" "$postgresql" "$redis"; do
    [ "${#secret}" -eq 64 ] || { echo "secrets.sh: no random bytes" >&2; exit 1; }
done
cat <<END
apiVersion: v1
kind: Namespace
metadata:
  name: twilio-edge
  labels:
    pod-security.kubernetes.io/enforce: restricted
---
apiVersion: v1
kind: Secret
metadata:
  name: twilio-edge
  namespace: twilio-edge
type: Opaque
stringData:
  edge-token: "$token"
  sending.toml: |
    [[account]]
    sid = "AC00112233445566778899aabbccddeeff"
    auth_token = "0123456789abcdef0123456789abcdef"
---
apiVersion: v1
kind: Secret
metadata:
  name: twilio-edge-postgresql
  namespace: twilio-edge
type: Opaque
stringData:
  password: "$postgresql"
  database-url: postgres://twilio_edge:$postgresql@twilio-edge-postgresql:5432/twilio_edge
---
apiVersion: v1
kind: Secret
metadata:
  name: twilio-edge-redis
  namespace: twilio-edge
type: Opaque
stringData:
  password: "$redis"
  redis-url: redis://:$redis@twilio-edge-redis:6379
END
