#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that needs a CUDA device, made to end within ten minutes: see `bench/gpu.sh help`
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

help() {
  cat <<'TEXT'
usage: ./build.sh gpu [FILTER] [--only STEP[,STEP...]]

Builds with plain nvcc what the steps need (left out if nothing changed), then runs, in this order:

  tests     tests/cuda, the example cuda_scores        -> docs/results/gpu_tests.txt
  bench     bench/*_bench.cu                           -> docs/results/gpu_NAME.json
  compare   bench/compare_gpu.py, where PyTorch is     -> docs/results/gpu_pytorch.json
  ladder    bench/ladder/*.cu                          -> docs/results/gpu_ladder_NAME.json
  sanitize  the tests at small sizes under memcheck, racecheck and initcheck
                                                       -> docs/results/gpu_sanitize.txt

FILTER: programs whose name contains it; compare is one, compare_gpu. --only build stops before the first
step. A failure does not stop the rest; the status is 0 only if everything ran and passed. Ends with
docs/results/gpu_summary.md. Tests run beside each other, but those of more than 2^31 elements, which
need the device's memory for themselves and come after compare.

Environment:
  GPU_SECONDS   time in all (default 580); what finds none left is named and counts as a failure
  CUDA_ARCH     such as sm_80, instead of the device's own
  OUT           an extra folder that results are copied to after every step: the summary, the texts and
                gpu_results.tar.gz, which holds all of them and the logs of what failed
Needs nvcc, doctest and Google Benchmark; the latter two from build/gpu_parts (./build.sh gpu-parts)
where they are not installed. What `--only build` made on another machine may be brought along, the whole
folder build/gpu, and is not built again if sources, toolkit and architecture are the same: without a
device sm_90a is built, which an H100 and an H200 have; for others set CUDA_ARCH on both machines.
TEXT
}

say() { printf '== %s (%d s)\n' "$*" "$SECONDS"; }
die() {
  printf 'gpu: %s\n' "$*" >&2
  exit 1
}

filter=''
steps=tests,bench,compare,ladder,sanitize
while (($# > 0)); do
  case $1 in
    --only)
      (($# > 1)) || die "--only needs a list of steps"
      steps=$2
      shift
      ;;
    --only=*) steps=${1#--only=} ;;
    help | -h | --help)
      help
      exit
      ;;
    -*) die "unknown option '$1' (see: ./build.sh gpu help)" ;;
    *) filter=$1 ;;
  esac
  shift
done
for step in ${steps//,/ }; do
  [[ " build tests bench compare ladder sanitize " == *" $step "* ]] || die "unknown step '$step'"
done
wants() { [[ ,$steps, == *,$1,* ]]; }
named() { [[ $1 == *"$filter"* ]]; }
built() { [[ $1 == *"$filter"* && -x $out/$1 ]]; }

# ---- the place ------------------------------------------------------------------------------------

out=build/gpu
parts=$PWD/build/gpu_parts
results=docs/results
total_seconds=${GPU_SECONDS:-580}
mkdir -p "$out" "$results"

nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
[[ -x $nvcc ]] || die "there is no nvcc here"
toolkit=$(cd "$(dirname "$(readlink -f "$nvcc")")/.." && pwd)
sanitizer=$(command -v compute-sanitizer || echo "$toolkit/bin/compute-sanitizer")

of_device() { nvidia-smi --query-gpu="$1" --format=csv,noheader 2>/dev/null | head -n 1; }
capability=$(of_device compute_cap)
[[ $capability =~ ^[0-9]+\.[0-9]+$ ]] || capability=''  # what nvidia-smi says without a driver
architecture=("-arch=${CUDA_ARCH:-native}")
# Without a device to run on, what is built is at least what an H100 or H200 would get.
if [[ -z ${CUDA_ARCH:-} && ${capability:-9.0} == 9.0 ]]; then
  architecture=(-gencode "arch=compute_90a,code=sm_90a")
fi

commit=$(git describe --always --dirty --abbrev=12 2>/dev/null || cat "$parts/commit" 2>/dev/null)
export DUALSFT_COMMIT=${DUALSFT_COMMIT:-${commit:-unknown}}
DUALSFT_DRIVER=$(of_device driver_version)
DUALSFT_CLOCKS=$(of_device clocks.max.sm,clocks.max.mem,power.limit)
export DUALSFT_DRIVER DUALSFT_CLOCKS

failed=()
left() { echo $((total_seconds - SECONDS)); }

# One job per core, but no more than memory carries: nvcc takes up to 2 GB.
most_jobs() {
  local cores memory
  cores=$(nproc)
  memory=$(awk '/^MemAvailable/ {print int($2 / 2000000)}' /proc/meminfo)
  ((memory >= 1)) || memory=1
  echo $((cores < memory ? cores : memory))
}

publish() {
  [[ -n ${OUT:-} && -d ${OUT:-} ]] || return 0
  local logs=()
  mapfile -t logs < <(find "$out" -name '*.log' -size +0)
  tar -czf "$OUT/gpu_results.tar.gz" "$results"/gpu_* ${logs[@]+"${logs[@]}"} 2>/dev/null
  cp "$results"/gpu_*.txt "$results"/gpu_summary.md "$OUT/" 2>/dev/null
  return 0
}

# ---- building -------------------------------------------------------------------------------------

# name, source, what else it is linked with
programs() {
  local source
  if wants tests || wants sanitize || wants build; then
    for source in tests/cuda/*_test.cu; do
      echo "$(basename "$source" .cu) $source $out/main.o"
    done
    echo "cuda_scores examples/cuda_scores/cuda_scores.cu"
  fi
  if wants bench || wants build; then
    for source in bench/*_bench.cu; do echo "$(basename "$source" .cu) $source benchmark"; done
  fi
  if wants ladder || wants build; then
    for source in bench/ladder/*.cu; do
      echo "ladder_$(basename "$source" .cu) $source benchmark"
    done
  fi
}

flags=(-std=c++20 -O3 -DNDEBUG "${architecture[@]}" --expt-relaxed-constexpr)
places=(-I include -I bench -I "$parts" -I "$parts/eigen3" -I /usr/include/eigen3)
links=(-lcublasLt -Xlinker -s)  # without symbols a fifth smaller, where it has to travel
[[ ! -d $parts/lib ]] || places+=(-L "$parts/lib")

# Where the toolkit came without cuBLASLt, PyTorch's wheels have brought it. Programs find libraries by
# LD_LIBRARY_PATH, so that those built on another machine run here; PyTorch has its own.
first_of() { compgen -G "$1" | head -n 1; }
found_in=$parts/lib:$toolkit/lib64:$toolkit/targets/$(uname -m)-linux/lib
wheels=$(python3 -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' 2>/dev/null)/nvidia
if [[ -z $(first_of "$toolkit/include/cublasLt.h")$(first_of "$toolkit/targets/*/include/cublasLt.h") ]]; then
  header=$(first_of "$wheels/*/include/cublasLt.h")
  [[ -z $header ]] || places+=(-isystem "$(dirname "$header")")
fi
if [[ -z $(first_of "$toolkit/lib64/libcublasLt.so")$(first_of "$toolkit/targets/*/lib/libcublasLt.so") ]]; then
  library=$(first_of "$wheels/*/lib/libcublasLt.so.*")
  if [[ -n $library ]]; then
    mkdir -p "$out/lib"
    ln -sf "$library" "$out/lib/libcublasLt.so"
    places+=(-L "$out/lib")
    found_in+=:$(dirname "$library")
  fi
fi
with_libraries=(env "LD_LIBRARY_PATH=$found_in${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}")

compile() { # NAME SOURCE [main.o | benchmark]
  local extra=()
  case ${3:-} in
    benchmark) extra=(-lbenchmark) ;;
    ?*) extra=("$3") ;;
  esac
  # What is only a baseline may come from newer headers than the toolkit's.
  if [[ $1 == topk_bench && -d $parts/cccl ]]; then extra+=(-I "$parts/cccl"); fi
  # Under its own name only when it is whole.
  "$nvcc" "${flags[@]}" "${places[@]}" "$2" ${extra[@]+"${extra[@]}"} "${links[@]}" \
    -o "$out/$1.part" >"$out/$1.build.log" 2>&1 && mv "$out/$1.part" "$out/$1"
}

# Of sources, compiler and flags, not of places: neither times nor paths survive a copy.
made_from() {
  {
    printf '%s\n' "${flags[@]}" "${links[@]}"
    "$nvcc" --version
    find include tests/cuda tests/support bench examples/cuda_scores -type f \
      \( -name '*.cu*' -o -name '*.hpp' \) -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
  } | sha256sum
}

build() {
  say "building for ${architecture[*]}"
  local now name source extra running=0 most wanted=0
  most=$(most_jobs)
  now=$(made_from)
  if ! grep -qxFs -- "$now" "$out/made_from"; then
    [[ -z $(first_of "$out/*_test")$(first_of "$out/*_bench") ]] ||
      say "build/gpu is of other sources, another toolkit or architecture: it is built again"
    rm -f "$out"/*_test "$out"/*_bench "$out"/ladder_* "$out/cuda_scores" "$out/main.o"
    echo "$now" >"$out/made_from"
  fi
  if [[ ! -e $out/main.o ]] && { wants tests || wants sanitize || wants build; }; then
    "$nvcc" "${flags[@]}" "${places[@]}" -c tests/cuda/main.cu \
      -o "$out/main.part.o" >"$out/main.log" 2>&1 &&
      mv "$out/main.part.o" "$out/main.o"
    [[ -e $out/main.o ]] || failed+=("building main.cu")
  fi
  while read -r name source extra; do
    named "$name" || continue
    [[ -e $source ]] || continue
    wanted=1
    [[ ! -x $out/$name ]] || continue
    if ((running >= most)); then
      wait -n
      running=$((running - 1))
    fi
    compile "$name" "$source" "$extra" &
    running=$((running + 1))
  done < <(programs)
  wait
  if ((wanted == 0)) && ! { wants compare && named compare_gpu; }; then
    die "no program of these steps has '$filter' in its name"
  fi
  while read -r name source extra; do
    named "$name" || continue
    [[ -e $source && ! -x $out/$name ]] || continue
    failed+=("building $name")
    printf '%s does not compile:\n' "$source"
    grep -m 5 -A 3 -iE 'error|fatal|undefined' "$out/$name.build.log"
  done < <(programs)
}

# ---- running --------------------------------------------------------------------------------------

no_time() {
  verdict="NOT RUN: no time left"
  failed+=("$1 (not run)")
  printf '   %-32s %s\n' "$1" "$verdict"
}

# run LIMIT NAME COMMAND...: quiet unless it fails; sets verdict
run() {
  local limit=$1 name=$2 log status=0 begin=$SECONDS
  shift 2
  log=$out/$name.log
  : >"$log"
  if (($(left) < 5)); then
    no_time "$name"
    return
  fi
  ((limit <= $(left))) || limit=$(left)
  timeout -k 5 "$limit" "$@" >"$log" 2>&1 || status=$?
  judge "$name" "$status" "$limit" $((SECONDS - begin))
}

# judge NAME STATUS LIMIT SECONDS: of what has run
judge() {
  local name=$1 status=$2 limit=$3 log=$out/$1.log
  case $status in
    0) verdict="passed ($4 s)" ;;
    77) verdict="SKIPPED: $(tail -n 1 "$log")" ;;
    124 | 137) verdict="FAILED: stopped after $limit s" ;;
    *) verdict="FAILED (status $status)" ;;
  esac
  if ((status != 0)); then
    failed+=("$name")
    tail -n 15 "$log" | cut -c 1-200
  fi
  printf '   %-32s %s\n' "$name" "$verdict"
}

heading() {
  printf 'device %s, driver %s, commit %s, %s\n' "$(of_device name)" "$DUALSFT_DRIVER" \
    "$DUALSFT_COMMIT" "$(date -u +%FT%TZ)"
}

# beside LIMIT MOST LOG COMMAND...: in the background, MOST at a time; leaves LOG.status, with the seconds
# taken and allowed, unless no time is left. `wait` and running=0 end it.
running=0
beside() {
  local limit=$1 most=$2 log=$3
  shift 3
  if ((running >= most)); then
    wait -n
    running=$((running - 1))
  fi
  rm -f "$log.status"
  : >"$log"
  (($(left) >= 5)) || return 0
  ((limit <= $(left))) || limit=$(left)
  (
    begin=$SECONDS status=0
    timeout -k 5 "$limit" "$@" >"$log" 2>&1 || status=$?
    echo "$status $limit $((SECONDS - begin))" >"$log.status"
  ) &
  running=$((running + 1))
}

large=()  # programs with tests of more than 2^31 elements
tests() {
  say "tests"
  local program name log status limit seconds most report=$results/gpu_tests.txt
  local programs=()
  heading >"$report"
  for program in tests/cuda/*_test.cu examples/cuda_scores/cuda_scores.cu; do
    name=$(basename "$program" .cu)
    named "$name" || continue
    if [[ ! -x $out/$name ]]; then
      printf '%-32s DOES NOT COMPILE\n' "$name" >>"$report"
      continue
    fi
    programs+=("$name")
    ! grep -q 'TEST_CASE.*2^3' "$program" || large+=("$name")
  done
  most=$(most_jobs)
  ((most <= 8)) || most=8
  for name in ${programs[@]+"${programs[@]}"}; do
    if [[ $name == cuda_scores ]]; then
      beside 150 "$most" "$out/$name.log" "${with_libraries[@]}" "$out/$name"
    else
      beside 150 "$most" "$out/$name.log" "${with_libraries[@]}" "$out/$name" \
        --test-case-exclude='*2^3*'
    fi
  done
  wait
  running=0
  for name in ${programs[@]+"${programs[@]}"}; do
    log=$out/$name.log
    if [[ -e $log.status ]]; then
      read -r status limit seconds <"$log.status"
      rm -f "$log.status"
      judge "$name" "$status" "$limit" "$seconds"
    else
      no_time "$name"
    fi
    tell "$name" >>"$report"
  done
  publish
}

# They have the device's memory for themselves, one after another, once the figures are there.
large_tests() {
  say "tests of more than 2^31 elements"
  local name verdict report=$results/gpu_tests.txt
  for name in ${large[@]+"${large[@]}"}; do
    run 100 "$name.large" "${with_libraries[@]}" "$out/$name" --test-case='*2^3*'
    tell "$name.large" >>"$report"
  done
  publish
}

tell() { # NAME
  printf '%-32s %s  %s\n' "$1" "$verdict" \
    "$(grep -E 'test cases|skipped|selected' "$out/$1.log" | tail -n 1)"
  grep -E 'MESSAGE: (skipped|left out)|skipped:' "$out/$1.log" | sort -u | sed 's/^/    /'
}

# measured FOLDER_NAME PREFIX LIMIT SOURCE...: programs of Google Benchmark
measured() {
  local kind=$1 prefix=$2 limit=$3 source name json
  shift 3
  say "$kind"
  for source in "$@"; do
    name=$prefix$(basename "$source" .cu)
    built "$name" || continue
    json=$results/gpu_${name%_bench}.json
    rm -f "$json"
    run "$limit" "$name" "${with_libraries[@]}" "$out/$name" --benchmark_out="$json" \
      --benchmark_out_format=json
    [[ -s $json ]] || rm -f "$json"
    publish
  done
}

compare() {
  named compare_gpu || return 0
  say "PyTorch"
  if ! python3 -c 'import torch' 2>/dev/null; then
    echo "   left out: python3 has no PyTorch here"
    failed+=("compare (no PyTorch)")
    return
  fi
  local seconds=$(($(left) - 30))  # it ends by itself, with what it has
  ((seconds <= 130)) || seconds=130
  COMPARE_SECONDS=$seconds run 160 compare_gpu python3 bench/compare_gpu.py "$results/gpu_pytorch.json"
  publish
}

sanitize() {
  say "sanitizers"
  local report=$results/gpu_sanitize.txt source name tool log logs=() status limit seconds
  local verdict unrun=0
  if [[ ! -x $sanitizer ]]; then
    echo "   left out: there is no compute-sanitizer here"
    failed+=("sanitize (no compute-sanitizer)")
    return
  fi
  heading >"$report"
  for source in tests/cuda/*_test.cu; do
    name=$(basename "$source" .cu)
    built "$name" || continue
    for tool in memcheck racecheck initcheck; do
      log=$out/$name.$tool.log
      logs+=("$log")
      beside 150 8 "$log" "${with_libraries[@]}" DUALSFT_SMALL=1 \
        "$sanitizer" --tool "$tool" --error-exitcode 1 "$out/$name"
    done
  done
  wait
  running=0
  for log in ${logs[@]+"${logs[@]}"}; do
    name=$(basename "$log" .log)
    if [[ ! -e $log.status ]]; then
      unrun=$((unrun + 1))
      continue
    fi
    read -r status limit seconds <"$log.status"
    rm -f "$log.status"
    case $status in
      0) verdict="clean ($seconds s)" ;;
      77) verdict="SKIPPED: no device" ;;
      124 | 137) verdict="FAILED: stopped after $limit s" ;;
      *) verdict="FAILED: $(grep -E 'ERROR SUMMARY|RACECHECK SUMMARY|rror' "$log" | tail -n 1)" ;;
    esac
    [[ $status == 0 ]] || failed+=("$name")
    printf '%-44s %s\n' "$name" "$verdict" | tee -a "$report" | sed 's/^/   /'
  done
  if ((unrun > 0)); then
    failed+=("$unrun of ${#logs[@]} sanitizer runs (not run)")
    echo "NOT RUN, no time left: $unrun of ${#logs[@]}" | tee -a "$report" | sed 's/^/   /'
  fi
  publish
}

build
if [[ $steps == build ]]; then
  ((${#failed[@]} == 0)) || die "failed: ${failed[*]}"
  say "everything compiles; nothing was run"
  exit
fi
[[ -n $capability || -e /dev/nvidiactl ]] || die "this machine has no CUDA device; --only build compiles"
! wants tests || tests
! wants bench || measured benchmarks '' 90 bench/*_bench.cu
! wants compare || compare
! wants tests || large_tests
! wants ladder || measured ladders ladder_ 45 bench/ladder/*.cu
! wants sanitize || sanitize

say "summary"
python3 bench/gpu_table.py "$results" >"$results/gpu_summary.md" || failed+=("gpu_table")
cat "$results/gpu_summary.md"
publish
echo "results: $(printf '%s ' "$results"/gpu_*)"
((${#failed[@]} == 0)) || die "failed: $(printf '%s; ' "${failed[@]}")"
