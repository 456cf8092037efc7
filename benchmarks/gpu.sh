#!/usr/bin/env bash
# What a GPU must show, most important first, in at most eight minutes:
#
#   bash benchmarks/gpu.sh                    all parts
#   bash benchmarks/gpu.sh b stc_resnet101    one part, of one network
#   bash benchmarks/gpu.sh --rehearse         tiny sizes on a CPU: that every line runs
#
# a  correctness: every family's logits and gradients, float32 and bfloat16, against the CPU; large videos
# b  train step and inference in bfloat16, ours, PyTorch's eager and, for two networks, torch.compile
# c  the costliest convolutions of those networks in every formulation, forward and both gradients
# d  a profile of the two networks that compare worst
#
# Tables are written after every row into $OUT, or else benchmarks/gpu-results. What one part leaves of its time is the
# next one's. It needs jax with CUDA, flax, optax, orbax-checkpoint (for absl) and torch. PYTHON is the interpreter.
set -u
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
export OUT=${OUT:-$here/gpu-results}
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}
# What was compiled is kept for the next call, and from part b for part d.
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/jax_video/gpu}

rehearse=() words=()
for word in "$@"; do
  case $word in
    --rehearse)
      rehearse=(--rehearse)
      export JAX_PLATFORMS=cpu XLA_FLAGS="${XLA_FLAGS:-} --xla_backend_optimization_level=0" # compiles in half the time
      ;;
    -*) echo "unknown flag $word" >&2 && exit 2 ;;
    *) words+=("$word") ;;
  esac
done
if [ ${#rehearse[@]} -gt 0 ]; then export OUT=$OUT/rehearsal; fi # a CPU's numbers are not a GPU's
part=${words[0]:-all}
network=()
if [ ${#words[@]} -gt 1 ]; then network=(--network="${words[1]}"); fi
case $part in a | b | c | d | all) ;; *) echo "unknown part $part: choose a, b, c or d" >&2 && exit 2 ;; esac

failed=0
run() { # NAME SECOND: what to run, and the second of this script at which it must have ended
  local end=$2 name=$1 start=$SECONDS
  shift 2
  if [ "$part" != all ]; then
    if [ "$part" != "${name:0:1}" ]; then return; fi
    end=480
  fi
  echo "== $name, until second $end"
  timeout --foreground --kill-after=5 $((end > SECONDS ? end - SECONDS : 1)) "$@" "${network[@]}" "${rehearse[@]}"
  local code=$?
  echo "== $name ended with $code after $((SECONDS - start)) s"
  if [ $code -ne 0 ]; then failed=1; fi
}

mkdir -p "$OUT"
if command -v nvidia-smi >/dev/null; then nvidia-smi | tee "$OUT/nvidia-smi.txt"; fi
run a 100 "$python" "$here/gpu.py" a
run b-ours 270 "$python" "$here/gpu.py" b --contestants=ours
JAX_PLATFORMS=cpu run b-torch 370 "$python" "$here/gpu.py" b --contestants=torch,torch.compile
run c 430 "$python" "$here/gpu.py" c
run d 475 "$python" "$here/gpu.py" d
cat "$OUT"/*.md
exit $failed
