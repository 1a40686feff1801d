#!/usr/bin/env bash
# How this machine's apt fetches, as a configuration file: proxies and the like.
set -euo pipefail
apt-config dump | grep -E '^Acquire::(http|https|Check-|Retries)' || true
