#!/bin/bash
# Installs the libraries that ours are measured beside, on Debian 12 or later, as root or through sudo. A benchmark
# skips by name what cannot be had, so this never fails; it is quick when everything is there.
set -uo pipefail

peers=(
    libipsec-mb-dev     # ChaCha20-Poly1305, by Intel
    libssl-dev          # the same, by OpenSSL
    dpdk-dev            # rte_hash, beside the flow table
)

missing=()
for package in "${peers[@]}"; do
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
apt_get() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get --quiet --quiet "$@"
}
apt_get update || true
for package in "${missing[@]}"; do
    apt_get install --yes --no-install-recommends "$package" || echo "install-peers: going on without $package" >&2
done
exit 0
