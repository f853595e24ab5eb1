#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Seconds that `#include <dualsft/dualsft.hpp>` costs at -O0, as the median of five compilations,
# beside what Eigen/Core alone costs. usage: bench/compile_time.sh [RESULT.json]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

compiler=${CXX:-g++}
result=${1:-build/bench/compile_time.json}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

median_seconds() {
  printf '#include <%s>\nint main() {}\n' "$1" >"$work/x.cpp"
  local begin end
  for _ in 1 2 3 4 5; do
    begin=$(date +%s%N)
    "$compiler" -std=c++20 -O0 -Iinclude -isystem /usr/include/eigen3 -c "$work/x.cpp" -o "$work/x.o"
    end=$(date +%s%N)
    echo $((end - begin))
  done | sort -n | awk 'NR == 3 {printf "%.3f", $1 / 1e9}'
}

umbrella=$(median_seconds dualsft/dualsft.hpp)
eigen=$(median_seconds Eigen/Core)
mkdir -p "$(dirname "$result")"
cat >"$result" <<JSON
{
  "compiler": "$("$compiler" --version | head -n 1)",
  "flags": "-std=c++20 -O0",
  "include": "dualsft/dualsft.hpp",
  "seconds": $umbrella,
  "seconds_eigen_core": $eigen,
  "target_seconds": 2.5
}
JSON
printf '#include <dualsft/dualsft.hpp>: %s s (Eigen/Core alone: %s s; aim: below 2.5 s)\n' \
  "$umbrella" "$eigen"
