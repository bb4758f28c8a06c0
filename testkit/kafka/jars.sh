#!/usr/bin/env bash
# Prints the folder with the jars of Apache Kafka 4.3.1; fetches them with Maven (44 MB) if it is not there yet.
#
# The folder appears whole or not at all: jars go to a temporary folder beside it, which is then renamed. A lock lets one of
# several processes fetch while the others wait.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tripline
jars=$cache/kafka-4.3.1

if [ ! -d "$jars" ]; then
    command -v mvn >/dev/null || { echo "Maven (mvn) was not found, and the Kafka jars are not in $jars" >&2; exit 1; }
    mkdir -p "$cache"
    exec 9>"$cache/kafka-4.3.1.lock"
    ! command -v flock >/dev/null || flock 9
    if [ ! -d "$jars" ]; then
        echo "fetching Apache Kafka 4.3.1 with Maven (44 MB, once) …" >&2
        fresh=$(mktemp -d "$cache/kafka-4.3.1.XXXXXX")
        trap 'rm -rf "$fresh"' EXIT
        mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$fresh/jars" >&2
        chmod 755 "$fresh/jars"
        # Without flock another process may have been faster: its folder is as good.
        [ -d "$jars" ] || mv "$fresh/jars" "$jars"
    fi
fi
echo "$jars"
