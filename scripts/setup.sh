#!/usr/bin/env bash
# Finds what building and testing need, and installs what is missing where it may (root or passwordless sudo, apt-get).
# Elsewhere it prints one message with everything that is missing and the commands that install it.
# Runs again and again; under a second when all is there.
#
#   scripts/setup.sh           find, install, fetch Kafka's jars, make the Python environment of the examples
#   scripts/setup.sh --check   only say what is missing
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

missing=()  # what, for people
packages=() # how, for apt-get
others=()   # commands for what apt-get does not have

# need WHAT PACKAGES…: something is missing that these packages bring.
need() {
    missing+=("$1")
    shift
    packages+=("$@")
}

has() { command -v "$1" >/dev/null 2>&1; }

has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    # libclang-cpp is another library: having only that one does not help.
    compgen -G "/usr/lib/llvm-*/lib/libclang.so*" >/dev/null && return 0
    compgen -G "/usr/lib/llvm-*/lib/libclang-[0-9]*.so*" >/dev/null && return 0
    compgen -G "/usr/lib*/libclang.so*" >/dev/null && return 0
    compgen -G "/Library/Developer/CommandLineTools/usr/lib/libclang.dylib" >/dev/null && return 0
    { ldconfig -p 2>/dev/null || true; } | grep -cE "libclang(-[0-9][0-9.]*)?\.so" >/dev/null
}

has_java_17() {
    local version
    version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -1)
    [ -n "$version" ] && [ "$version" -ge 17 ]
}

has_kafka_jars() { [ -d "${XDG_CACHE_HOME:-$HOME/.cache}/tripline/kafka-4.3.1" ]; }

# The Python of the examples' tests: an environment of its own with what they ask for.
python_home="${XDG_CACHE_HOME:-$HOME/.cache}/tripline/python"
python_needs=examples/standing/requirements.txt

has_python() { has python3 && python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; }

has_python_home() { [ -x "$python_home/bin/python" ] && cmp -s "$python_needs" "$python_home/requirements.txt"; }

# Without a package index only those tests fail, and they say why.
make_python_home() {
    echo "setup: making a Python environment for the examples in $python_home"
    if python3 -m venv --clear "$python_home" &&
        "$python_home/bin/python" -m pip install --quiet --disable-pip-version-check -r "$python_needs"; then
        cp "$python_needs" "$python_home/requirements.txt"
    else
        echo "setup: could not install what $python_needs names: tests of the examples will fail until this runs through" >&2
    fi
}

docker_answers() { has docker && timeout 5 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# Which of the three ways to a Kafka will work: `broker`, `java`, `docker`, or nothing.
kafka_way() {
    if [ -n "${TRIPLINE_TEST_BOOTSTRAP:-}" ]; then
        echo broker
    elif has_java_17 && { has_kafka_jars || has mvn; }; then
        echo java
    elif docker_answers; then
        echo docker
    fi
}

java_package() {
    if apt-cache show openjdk-17-jre-headless >/dev/null 2>&1; then echo openjdk-17-jre-headless; else echo default-jre-headless; fi
}

find_missing() {
    missing=() packages=() others=()
    { has cc || has gcc || has clang; } && { has c++ || has g++ || has clang++; } || need "C and C++ compilers" build-essential
    has make || need "make" build-essential
    has_libclang || need "libclang (bindings of RocksDB)" libclang-dev
    has pkg-config || need "pkg-config" pkg-config
    has pkg-config && pkg-config --exists openssl || need "OpenSSL's headers" libssl-dev
    has_python || need "Python 3.8 or newer with venv (tests of the examples)" python3 python3-venv
    if ! has cargo; then
        missing+=("Rust")
        others+=("curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y   # then: . \"\$HOME/.cargo/env\"")
    fi
    if [ -z "$(kafka_way)" ]; then
        # A Docker engine would do as well; Java is what can be installed without asking for more.
        has_java_17 || need "Java 17 or newer (or a Docker engine)" "$(java_package)"
        has_kafka_jars || has mvn || need "Maven (or a Docker engine)" maven
    fi
}

# The prefix with which apt-get may be called; fails when it may not.
as_root() {
    has apt-get || return 1
    if [ "$(id -u)" = 0 ]; then
        echo ""
    elif has sudo && sudo -n true 2>/dev/null; then
        echo "sudo"
    else
        return 1
    fi
}

explain() {
    {
        echo "Missing: $(printf '%s; ' "${missing[@]}" | sed 's/; $//')."
        echo "Install with:"
        if [ ${#packages[@]} -gt 0 ]; then
            echo "    sudo apt-get update && sudo apt-get install -y $(printf '%s\n' "${packages[@]}" | sort -u | tr '\n' ' ')"
        fi
        for command in "${others[@]}"; do echo "    $command"; done
    } >&2
}

find_missing
if [ ${#missing[@]} -gt 0 ] && [ "${1:-}" = --check ]; then
    explain
    exit 1
fi
if [ ${#packages[@]} -gt 0 ] && sudo=$(as_root); then
    mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
    echo "setup: installing ${packages[*]}"
    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
    find_missing
fi
if [ ${#missing[@]} -gt 0 ]; then
    explain
    exit 1
fi

way=$(kafka_way)
if [ "$way" = java ] && [ "${1:-}" != --check ]; then
    testkit/kafka/jars.sh >/dev/null
fi
if [ "${1:-}" != --check ]; then
    has_python_home || make_python_home
fi
echo "setup: all there (Kafka for tests and demo: $way)"
