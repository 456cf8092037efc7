#!/bin/bash
# Trains on a slice of a Cloud TPU pod: one process on each of its hosts, which find each other by --distributed=auto.
#
#   launch/tpu_pod.sh create     asks for a slice; wait until `gcloud compute tpus queued-resources list` says ACTIVE
#   launch/tpu_pod.sh install    puts this checkout on all hosts; again after a change
#   launch/tpu_pod.sh run --config=stc:data=gs://BUCKET/ucf101/packed --workdir=gs://BUCKET/runs/ucf101
#   launch/tpu_pod.sh stop       by SIGTERM: the run saves, and the same `run` goes on from there
#   launch/tpu_pod.sh delete
#
# Change the name, the zone and the slice below, or give them: TYPE=v6e-16 RUNTIME=v2-alpha-tpuv6e launch/tpu_pod.sh ...
# The hosts share no disk: the set (packed, by `prepare --pack`) and the run's folder are in gs://. When a slice was
# preempted, delete, create and install; the same `run` goes on five minutes after the last sign of life, or with
# --takeover.
set -euo pipefail
NAME=${NAME:-jax-video}
ZONE=${ZONE:-us-west4-a}
TYPE=${TYPE:-v5litepod-16}
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite}

everywhere() {
    gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$1"
}

case "${1:-}" in
create) # --spot: cheaper, but may be preempted
    gcloud compute tpus queued-resources create "$NAME" --node-id="$NAME" --zone="$ZONE" \
        --accelerator-type="$TYPE" --runtime-version="$RUNTIME" --spot
    ;;
install) # with a Python of its own, as that of the hosts may be too old
    wheels=$(mktemp -d)
    pip wheel --no-deps --wheel-dir="$wheels" "$(dirname "$0")/.."
    wheel=$(basename "$wheels"/*.whl)
    gcloud compute tpus tpu-vm scp "$wheels/$wheel" "$NAME": --zone="$ZONE" --worker=all
    uv=.local/bin/uv
    everywhere "curl -LsSf https://astral.sh/uv/install.sh | sh && $uv venv --clear --python=3.12 venv &&
        $uv pip install --python=venv './${wheel}[tpu,gcs]'"
    ;;
run)
    everywhere "venv/bin/python -u -m jax_video.main --distributed=auto $(printf '%q ' "${@:2}")"
    ;;
stop) # [j]: not the shell that is told this
    everywhere "pkill --signal TERM --full '[j]ax_video.main'"
    ;;
delete)
    gcloud compute tpus queued-resources delete "$NAME" --zone="$ZONE" --force
    ;;
*)
    sed -n '2,/^set/{/^#/p}' "$0"
    exit 2
    ;;
esac
