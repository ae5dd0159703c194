#!/usr/bin/env bash
# Puts the real backends of tests/receivers where the tests look for them: $DRIFTGATE_TEST_TOOLS, by default in the
# user's cache. What is there in the right version stays, so a second run takes a second.
#
#   tests/receivers/install.sh            mockotlpserver, MLflow, the OpenTelemetry Collector, Prometheus; as root,
#                                         Chromium
#   tests/receivers/install.sh jaeger     Jaeger: six minutes and 3 GB of Go's caches on two cores
set -euo pipefail
MOCKOTLPSERVER=0.10.0
MLFLOW=3.17.2
COLLECTOR=0.165.0
JAEGER=1.76.0 # the module of Jaeger 2.13

tools=${DRIFTGATE_TEST_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/driftgate-test-tools}
mkdir -p "$tools/bin"
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

has() { [ "$(cat "$tools/$1.version" 2>/dev/null)" = "$2" ]; }
done_with() { echo "$2" >"$tools/$1.version"; }

mockotlpserver() {
  has mockotlpserver $MOCKOTLPSERVER && return
  npm install --silent --no-audit --no-fund --prefix "$tools/npm" "@elastic/mockotlpserver@$MOCKOTLPSERVER"
  done_with mockotlpserver $MOCKOTLPSERVER
}

mlflow() {
  has mlflow $MLFLOW && return
  rm -rf "$tools/mlflow"
  "${PYTHON:-python3}" -m venv "$tools/mlflow"
  "$tools/mlflow/bin/pip" install --quiet --disable-pip-version-check "mlflow==$MLFLOW"
  done_with mlflow $MLFLOW
}

# The builder writes the sources; its own `go mod tidy` also asks for what only tests of the components need.
collector() {
  has collector $COLLECTOR && return
  local core=go.opentelemetry.io/collector contrib=github.com/open-telemetry/opentelemetry-collector-contrib
  GOBIN=$build go install "$core/cmd/builder@v$COLLECTOR"
  cat >"$build/builder.yaml" <<EOF
dist: {name: otelcol, output_path: $build/otelcol}
receivers:
  - gomod: $core/receiver/otlpreceiver v$COLLECTOR
exporters:
  - gomod: $core/exporter/debugexporter v$COLLECTOR
  - gomod: $contrib/exporter/fileexporter v$COLLECTOR
EOF
  "$build/builder" --skip-get-modules --skip-compilation --config "$build/builder.yaml"
  cd "$build/otelcol"
  go mod init otelcol
  go get "$core/otelcol@v$COLLECTOR" "$core/receiver/otlpreceiver@v$COLLECTOR" \
    "$core/exporter/debugexporter@v$COLLECTOR" "$contrib/exporter/fileexporter@v$COLLECTOR"
  go build -mod=mod -trimpath -ldflags='-s -w' -o "$tools/bin/otelcol" .
  done_with collector $COLLECTOR
}

# `go install` refuses a module with a replace directive, so its go.mod becomes that of a module which requires it.
# Its web page is not in the module.
jaeger() {
  has jaeger $JAEGER && return
  local module=github.com/jaegertracing/jaeger source
  source=$(cd "$build" && go mod download -json "$module@v$JAEGER" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  install -m 644 "$source/go.mod" "$source/go.sum" "$build"
  cd "$build"
  go mod edit -module build -require "$module@v$JAEGER"
  go build -mod=mod -trimpath -ldflags='-s -w' -o "$tools/bin/jaeger" "$module/cmd/jaeger"
  done_with jaeger $JAEGER
}

# Debian's, in the version that it has, unpacked: installed, it would start a service. With package lists of its own this
# needs no root.
prometheus() {
  [ -x "$tools/bin/prometheus" ] && return
  mkdir -p "$build/apt/lists/partial" "$build/apt/cache/archives/partial"
  cd "$build/apt"
  local apt=(apt-get -qq -o Dir::State::lists="$PWD/lists" -o Dir::Cache="$PWD/cache" -o APT::Sandbox::User=root)
  "${apt[@]}" update
  "${apt[@]}" download prometheus
  dpkg -x prometheus_*.deb .
  install usr/bin/promtool usr/bin/prometheus "$tools/bin"
}

# `type -P` does not find this function, as `command -v` would.
chromium() {
  if type -P chromium >/dev/null || [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then return; fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core
}

# One after the other: where apt-get clears its cache after an update, as in containers, it clears it for both.
packages() {
  prometheus
  chromium
}

failed=0
names=()
jobs=()

# What a tool is installed with may be missing; then its tests are skipped.
begin() {
  if ! command -v "$2" >/dev/null; then
    echo "$1: not installed, $2 is not on this machine"
    return
  fi
  "$1" >"$build/$1.log" 2>&1 &
  names+=("$1")
  jobs+=($!)
}

finish() {
  local index name
  for index in "${!jobs[@]}"; do
    name=${names[$index]}
    if wait "${jobs[$index]}"; then
      echo "$name: there, after $SECONDS s"
    else
      tail -n 30 "$build/$name.log" >&2
      echo "$name: could not be installed" >&2
      failed=1
    fi
  done
}

if [ "${1:-}" = jaeger ]; then
  begin jaeger go
else
  begin mockotlpserver npm
  begin packages apt-get
  begin mlflow "${PYTHON:-python3}"
  begin collector go
fi
finish
exit $failed
