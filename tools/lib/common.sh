# shellcheck shell=bash
# common.sh - what tools/quickstart and test/run share: words, failing clearly, Debian packages. To be sourced.

# What compiling the project needs.
# shellcheck disable=SC2034 # used by the scripts that source this file
BUILD_PACKAGES=(gcc libc6-dev meson ninja-build pkg-config libsqlite3-dev liblz4-dev libyaml-dev
    libcurl4-openssl-dev libssl-dev libexpat1-dev libjansson-dev libssh2-1-dev)

heading() { printf '\n== %s\n' "$*"; }

# die MESSAGE: the one clear line of a step that failed.
die() {
    printf '\nFAILED: %s\n' "$*" >&2
    exit 1
}

# Runs a command as root: as it is when we are, else through sudo.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "not root, and there is no sudo to run: $*" >&2
        return 1
    fi
}

# missing_packages PACKAGE...: prints those that are not installed.
missing_packages() {
    local package
    for package in "$@"; do
        if [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
            echo "$package"
        fi
    done
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
        install --no-install-recommends "$@"
}

# install_packages PACKAGE...: installs what is missing and says so. The package lists are fetched only when
# installing fails without that (a fresh machine has none, an old one may have outdated ones).
install_packages() {
    local missing log
    mapfile -t missing < <(missing_packages "$@")
    if [ ${#missing[@]} = 0 ]; then
        return 0
    fi
    echo "installing with apt-get: ${missing[*]}"
    if ! command -v apt-get >/dev/null; then
        echo "there is no apt-get here; install what corresponds to: ${missing[*]}" >&2
        return 1
    fi
    log=$(mktemp)
    if apt_install "${missing[@]}" >"$log" 2>&1; then
        rm -f "$log"
        return 0
    fi
    echo "fetching the package lists first (apt-get update)"
    if as_root apt-get -q update >>"$log" 2>&1 && apt_install "${missing[@]}" >>"$log" 2>&1; then
        rm -f "$log"
        return 0
    fi
    tail -n 20 "$log" >&2
    rm -f "$log"
    echo "apt-get could not install: ${missing[*]}" >&2
    return 1
}
