#!/usr/bin/env bash
# Draws the secrets that docker-compose.yml mounts, into deploy/secrets; keeps those that are there.
set -euo pipefail
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
cd secrets

keep() { if [ -s "$1" ]; then cat >/dev/null; else cat >"$1"; fi; }

openssl rand -hex 32 | keep postgres_password
keep storage_url <<<"postgresql://rollbackd:$(cat postgres_password)@postgres:5432/rollbackd"
for name in viewer operator producer; do openssl rand -hex 32 | keep "${name}_token"; done
keep router_secret <<<"whsec_$(openssl rand -base64 32)"
[ -s signing_key ] || openssl genpkey -algorithm ed25519 -out signing_key
[ -s signing_public ] || openssl pkey -in signing_key -pubout -out signing_public

# The folder is closed; the files are read by uid 10001 inside the containers, which is not you.
chmod 0444 ./*
