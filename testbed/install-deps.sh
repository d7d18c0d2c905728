#!/bin/bash
# Installs what building, testing and the demo need, on Debian 12 or later with Rust, as root or through sudo.
# Quick and silent when everything is there: no package list is fetched.
set -euo pipefail

required=(
    gcc libc6-dev make pkgconf m4             # to link, and to build libxdp
    clang llvm libelf-dev zlib1g-dev          # libxdp and its BPF programs
    libpcap-dev                               # filters of captures
    iproute2 ethtool iputils-ping             # networks of namespaces
    iperf3 curl tcpdump nftables graphviz     # traffic, peers, pictures
)
# nginx serves a file faster than anything else at hand; the others are the peers of tunnels and of routing, and tshark reads
# what is on the wire between. Tests and the demo do without what cannot be had.
optional=(nginx-light wireguard-go wireguard-tools tshark bird2 python3-venv)
# Asks the socket whatever its OpenAPI document allows. From PyPI, into a folder of its own; a test goes without it, too.
schemathesis=schemathesis==4.32.5
schemathesis_folder=${XDG_CACHE_HOME:-$HOME/.cache}/margay/schemathesis

install_schemathesis() {
    local done_file=$schemathesis_folder/$schemathesis
    [ ! -e "$done_file" ] || return 0
    echo "install-deps: installing $schemathesis" >&2
    python3 -m venv --clear "$schemathesis_folder" &&
        "$schemathesis_folder/bin/pip" install --quiet --disable-pip-version-check --retries 1 "$schemathesis" &&
        touch "$done_file" ||
        rm -rf "$schemathesis_folder"
    [ -e "$done_file" ] || echo "install-deps: $schemathesis cannot be had here; going on without" >&2
}

if [ "${1:-}" != packages ]; then
    "$0" packages
    install_schemathesis
    exit 0
fi

missing() {
    local package
    for package in "$@"; do
        [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || printf '%s ' "$package"
    done
}

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    for program in cc make pkg-config m4 clang llvm-strip ip ethtool ping iperf3 curl tcpdump nft dot; do
        command -v "$program" >/dev/null && continue
        echo "install-deps: this is no Debian and \`$program\` is missing; install what ${required[*]} are here" >&2
        exit 1
    done
    exit 0
fi

read -r -a wanted <<<"$(missing "${required[@]}")"
read -r -a extra <<<"$(missing "${optional[@]}")"
if [ ${#wanted[@]} -eq 0 ]; then
    # Not worth fetching a package list for.
    known=()
    for package in "${extra[@]}"; do
        apt-cache show "$package" >/dev/null 2>&1 && known+=("$package")
    done
    extra=("${known[@]}")
    [ ${#extra[@]} -gt 0 ] || exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        [ ${#wanted[@]} -gt 0 ] || exit 0
        echo "install-deps: ${wanted[*]} missing, and neither root nor sudo here; as root, run: apt-get install ${wanted[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi

apt_get() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get --quiet --quiet "$@"
}

if [ ${#wanted[@]} -gt 0 ]; then
    echo "install-deps: installing ${wanted[*]}" >&2
    apt_get update
    apt_get install --yes --no-install-recommends "${wanted[@]}"
fi

[ ${#extra[@]} -gt 0 ] || exit 0
# The package of the web server starts it and keeps it for every boot; wanted is the program only.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
fi
for package in "${extra[@]}"; do
    apt_get install --yes --no-install-recommends "$package" ||
        echo "install-deps: $package cannot be had here; going on without" >&2
done
if command -v systemctl >/dev/null; then
    "${as_root[@]}" systemctl --quiet disable nginx 2>/dev/null || true
fi
