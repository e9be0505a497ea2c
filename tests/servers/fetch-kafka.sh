#!/usr/bin/env bash
# Fetches the jars of the Kafka broker of the tests, once, and prints their folder.
#   JARS=$(tests/servers/fetch-kafka.sh)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
pom="$here/kafka-pom.xml"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/orrery"
home="$cache/kafka-4.1.0"
stamp="$home/.pom.sha256"
wanted=$(sha256sum < "$pom")

for program in java mvn; do
    if ! command -v "$program" > /dev/null; then
        echo "tests/servers/fetch-kafka.sh: $program is missing; install openjdk-17-jre-headless and maven (scripts/setup.sh test does)" >&2
        exit 1
    fi
done

mkdir -p "$cache"
# Tests run in parallel: one of them fetches, the others wait.
exec 9> "$cache/kafka.lock"
flock 9

if [[ "$(cat "$stamp" 2> /dev/null)" != "$wanted" ]]; then
    echo "tests/servers/fetch-kafka.sh: fetching Apache Kafka 4.1.0 into $home" >&2
    rm -rf "$home"
    mkdir -p "$home/jars"
    mvn -q -B -f "$pom" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$home/jars" >&2
    printf '%s\n' "$wanted" > "$stamp"
fi
printf '%s\n' "$home/jars"
