#!/usr/bin/env bash
# Checks what a build needs and installs what is missing. Idempotent, and fast when nothing is missing.
#
#   scripts/setup.sh demo    what `make demo` needs
#   scripts/setup.sh test    that, and the foreign programs that `make test` runs against
#
# Debian packages are installed with apt-get when the user is root or may use sudo without a password; otherwise the exact
# command is printed. Rust comes from rustup, and the toolchain that it installs is the one in rust-toolchain.toml.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
level=${1:-demo}
node_major=20
java_major=17

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
has() { PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$1" > /dev/null 2>&1; }

# Prints the first number of a version: "v20.20.2" -> 20, 'openjdk version "17.0.15"' -> 17.
major() { grep -oE '[0-9]+' <<< "$1" | head -n 1; }

packages=()
need() { # need PACKAGE COMMAND...: the Debian package that is missing when one of the commands is
    local package=$1 command
    shift
    for command in "$@"; do
        has "$command" || { packages+=("$package"); return 0; }
    done
}

check_demo_packages() {
    need git git
    need ca-certificates update-ca-certificates
    need curl curl
    need build-essential cc c++ make
    need pkg-config pkg-config
    # librdkafka links against OpenSSL.
    if has pkg-config && ! pkg-config --exists openssl; then packages+=(libssl-dev); fi
    has pkg-config || packages+=(libssl-dev)
    need python3 python3
    if ! has node || (($(major "$(node --version)") < node_major)); then packages+=(nodejs); fi
    need npm npm
}

check_test_packages() {
    if ! has python3 || ! python3 -c 'import ensurepip, venv' > /dev/null 2>&1; then packages+=(python3-venv); fi
    need mosquitto mosquitto
    need mosquitto-clients mosquitto_sub mosquitto_pub
    need chromium chromium
    if ! has java || (($(major "$(java -version 2>&1)") < java_major)); then packages+=("openjdk-$java_major-jre-headless"); fi
    need maven mvn
}

install_packages() {
    ((${#packages[@]})) || return 0
    local wanted="${packages[*]}" as_root=()
    if ! has apt-get; then
        fail "these are missing: $wanted (Debian's names). Install them with this system's package manager and run this again."
    fi
    if ((EUID != 0)); then
        if has sudo && sudo -n true 2> /dev/null; then
            as_root=(sudo)
        else
            fail "packages are missing. Run: sudo apt-get update && sudo apt-get install --no-install-recommends -y $wanted"
        fi
    fi
    say "installing $wanted"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --no-install-recommends -y -qq "${packages[@]}" > /dev/null
}

# The archive of an old Debian carries an old Node; say so instead of failing later in npm.
check_node() {
    local found
    found=$(node --version)
    (($(major "$found") >= node_major)) \
        || fail "Node $found is too old, the dashboard needs $node_major: see https://nodejs.org/en/download"
}

check_rust() {
    export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    if ! has rustup; then
        if has cargo; then
            fail "cargo is here without rustup, which brings the pinned toolchain: see https://rustup.rs"
        fi
        say "installing rustup"
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs \
            | sh -s -- -y --no-modify-path --default-toolchain none --profile minimal
    fi
    local channel target sysroot
    channel=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$root/rust-toolchain.toml")
    target=wasm32-unknown-unknown
    # A toolchain that is there is left alone: reinstalling it would pull it from under a running build.
    sysroot=$(cd / && rustup run "$channel" rustc --print sysroot 2> /dev/null || true)
    if [[ -z "$sysroot" ]]; then
        say "installing Rust $channel"
        rustup toolchain install "$channel" --profile minimal --component clippy,rustfmt --target "$target"
    elif [[ ! -d "$sysroot/lib/rustlib/$target" ]]; then
        say "adding $target to Rust $channel"
        rustup target add --toolchain "$channel" "$target"
    fi
}

case "$level" in
    demo) check_demo_packages ;;
    test) check_demo_packages; check_test_packages ;;
    *) fail "'$level' is not a level: use demo or test" ;;
esac
install_packages
check_node
check_rust
if [[ "$level" == test ]]; then
    "$root/tests/servers/venv.sh" > /dev/null
fi
say "ready for make $level"
