#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything from a bare Debian 12: see ./build.sh help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

demo_program=11_language_model

help() {
  cat <<'TEXT'
usage: ./build.sh COMMAND [ARGUMENTS]

  demo [ARGUMENTS]  build, then run the main job and show its result
  test [ARGUMENTS]  build, then run every test (ARGUMENTS go to ctest)
  bench [FILTER]    build the benchmarks, then run those whose name contains FILTER;
                    writes build/bench/NAME.json
  gpu [ARGUMENTS]   build and run every test, benchmark and ladder of the CUDA headers on this machine's
                    device; writes docs/results/gpu_*; see ./build.sh gpu help
  gpu-parts         put into build/gpu_parts what that needs on a machine without packages
  setup [GROUP...]  only install what is missing; groups: build (always), bench, ci
  ci                what continuous integration runs (.ci/run)
  help              this text

Missing Debian packages are installed first, through sudo unless root. With everything
present nothing is installed and no network is used.
TEXT
}

say() { printf '== %s\n' "$*"; }

fail() {
  printf 'build.sh: %s\n' "$*" >&2
  exit 1
}

# ---- what is needed, and how to tell that it is there ---------------------------------------------
# group, Debian package, probe: a command, or the path (a pattern) of a file

requirements='
build  g++                 g++
build  cmake               cmake
build  ninja-build         ninja
build  libeigen3-dev       /usr/include/eigen3/Eigen/Core
build  doctest-dev         /usr/include/doctest/doctest.h
build  nlohmann-json3-dev  /usr/include/nlohmann/json.hpp
build  libcli11-dev        /usr/include/CLI/CLI.hpp
build  libpcre2-dev        /usr/include/pcre2.h
build  libxtensor-dev      /usr/include/xtensor/xtensor_config.hpp
bench  libbenchmark-dev    /usr/include/benchmark/benchmark.h
ci     libbenchmark-dev    /usr/include/benchmark/benchmark.h
ci     clang               clang++
ci     libclang-rt-dev     /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.asan-*.a
ci     clang-format        clang-format
ci     clang-tidy          clang-tidy
ci     shellcheck          shellcheck
'

present() {
  case $1 in
    /*) compgen -G "$1" >/dev/null ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

setup() {
  local wanted=" build $* " missing=() group package probe
  while read -r group package probe; do
    [[ -n $group && $wanted == *" $group "* ]] || continue
    present "$probe" || missing+=("$package")
  done <<<"$requirements"
  ((${#missing[@]} > 0)) || return 0

  command -v apt-get >/dev/null ||
    fail "missing: ${missing[*]}; this machine has no apt-get, please install them by hand"
  local as_root=()
  if ((EUID != 0)); then
    command -v sudo >/dev/null ||
      fail "missing: ${missing[*]}; run as root, or install sudo, or: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  say "installing ${missing[*]}"
  local log
  log=$(mktemp)
  if ! { "${as_root[@]}" apt-get update -q &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
      apt-get install -q -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    fail "could not install ${missing[*]} (whole log: $log)"
  fi
  rm -f "$log"
}

# ---- building -------------------------------------------------------------------------------------

# One job per core, but no more than memory carries: the largest translation units take 1.5 GB.
jobs() {
  local cores gigabytes
  cores=$(nproc)
  gigabytes=$(awk '/^MemAvailable/ {print int($2 / 1000000)}' /proc/meminfo 2>/dev/null || echo 4)
  local most=$((gigabytes * 2 / 3))
  ((most >= 1)) || most=1
  echo $((cores < most ? cores : most))
}

# build PRESET [TARGET...]: quiet as long as all goes well.
build() {
  local preset=$1 log
  shift
  say "building ($preset)"
  mkdir -p build
  log=build/$preset.log
  if ! cmake --preset "$preset" >"$log" 2>&1; then
    cat "$log" >&2
    fail "configuring '$preset' failed"
  fi
  if ! cmake --build "build/$preset" --parallel "$(jobs)" ${1+--target "$@"} >"$log" 2>&1; then
    grep -v '^\[' "$log" | head -n 100 >&2
    fail "building '$preset' failed (whole log: $log)"
  fi
}

# ---- commands -------------------------------------------------------------------------------------

# With arguments of its own the program only prints its table; without, what it leaves behind goes
# through `dualsft run` and becomes a report.
demo() {
  setup
  build release "$demo_program" dualsft_cli
  say "running $demo_program"
  if (($# > 0)); then
    "build/release/bin/$demo_program" "$@"
    return
  fi
  local place=build/demo dualsft=build/release/bin/dualsft
  rm -rf "$place"
  "build/release/bin/$demo_program" --out "$place"
  say "the same adaptation by the program: dualsft run"
  "$dualsft" run --model "$place/model" --train "$place/train.jsonl" \
    --validation "$place/validation.jsonl" --anchors "$place/anchors.jsonl" \
    --template "$place/template.txt" --learning-rate 1e-3 --batch-size 16 --compare-full \
    --out "$place/run"
  "$dualsft" report "$place/run"
  say "open $place/run/report.html"
}

run_tests() {
  setup
  build release
  say "running the tests"
  ctest --test-dir build/release --parallel "$(nproc)" --output-on-failure "$@"
}

bench() {
  setup bench
  build bench
  local program name
  for program in build/bench/bench/*_bench; do
    name=$(basename "$program")
    [[ $name == *"${1:-}"* ]] || continue
    say "$name"
    "$program" --benchmark_out="build/bench/$name.json" --benchmark_out_format=json \
      --benchmark_counters_tabular=true
  done
  if [[ compile_time == *"${1:-}"* ]]; then
    say "compile_time"
    bench/compile_time.sh build/bench/compile_time.json
  fi
}

# Headers and a library that a machine without packages lacks, for bench/gpu.sh. libbenchmark needs
# libstdc++ of GCC 12 and glibc 2.32, or newer, and nothing else; Google Benchmark, Eigen and doctest are
# the distribution's. CUB's DeviceTopK, a baseline alone, is newer than CUDA 13.0 and comes from NVIDIA's
# wheel where pip can fetch it.
gpu_parts() {
  setup bench
  local parts=build/gpu_parts library work
  library=$(compgen -G '/usr/lib/*/libbenchmark.so.1debian' | head -n 1)
  [[ -n $library ]] || fail "gpu-parts: libbenchmark-dev is not Debian's"
  rm -rf "$parts"
  mkdir -p "$parts/doctest" "$parts/benchmark" "$parts/lib" "$parts/eigen3"
  cp /usr/include/doctest/doctest.h "$parts/doctest/"
  cp /usr/include/benchmark/*.h "$parts/benchmark/"
  cp -r /usr/include/eigen3/Eigen "$parts/eigen3/"
  # Files under each name rather than links, which do not survive every way of copying.
  local name
  for name in libbenchmark.so libbenchmark.so.1debian libbenchmark.so.1.7.1; do
    cp -L "$library" "$parts/lib/$name"
  done
  git describe --always --dirty --abbrev=12 >"$parts/commit" 2>/dev/null || rm -f "$parts/commit"
  work=$(mktemp -d)
  if python3 -m pip download --quiet --no-deps --dest "$work" nvidia-cuda-cccl==13.3.5.0.6 \
    >/dev/null 2>&1; then
    python3 -m zipfile -e "$work"/*.whl "$work/wheel"
    cp -r "$work/wheel/nvidia/cu13/include/cccl" "$parts/cccl"
  else
    say "left out: cub::DeviceTopK (pip could not fetch nvidia-cuda-cccl)"
  fi
  rm -rf "$work"
  say "build/gpu_parts is ready ($(du -sh "$parts" | cut -f 1)): bring it along with the repository"
}

command=${1:-help}
shift || true
case $command in
  demo) demo "$@" ;;
  test) run_tests "$@" ;;
  bench) bench "$@" ;;
  gpu) exec bash bench/gpu.sh "$@" ;;
  gpu-parts) gpu_parts ;;
  setup) setup "$@" ;;
  ci) exec .ci/run ;;
  help | -h | --help) help ;;
  *)
    help >&2
    fail "unknown command '$command'"
    ;;
esac
