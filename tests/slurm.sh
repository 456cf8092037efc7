#!/bin/bash
# A SLURM cluster of one node with two processors, on this machine, for tests/test_slurm.py.
#
#   apt-get install slurm-wlm munge        once, as root, on Debian or Ubuntu; tried with SLURM 22.05
#   tests/slurm.sh start FOLDER            starts munged, slurmctld and slurmd; their files are in FOLDER
#   export SLURM_CONF=FOLDER/slurm.conf    then sbatch, squeue, scancel and scontrol use it
#   tests/slurm.sh stop FOLDER
#
# It needs neither systemd nor cgroups; jobs run as who starts it. A job of the partition `urgent` preempts those of
# `normal`, which are given 30 seconds.
set -euo pipefail
PATH=$PATH:/usr/sbin

start() {
    mkdir -p "$1"
    folder=$(cd "$1" && pwd)
    user=$(id -un)
    port=$((20000 + RANDOM % 10000))
    head -c 1024 /dev/urandom >"$folder/munge.key"
    chmod 600 "$folder/munge.key"
    # --force: it would refuse a folder that others may not enter, as those of tests are
    munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munged.log" --seed-file="$folder/munge.seed" 2>"$folder/munged.stderr"
    cat >"$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$folder/munge.socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=30
NodeName=localhost NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=normal Nodes=localhost Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=localhost MaxTime=INFINITE PriorityTier=2
CONF
    mkdir -p "$folder/state" "$folder/spool"
    export SLURM_CONF=$folder/slurm.conf
    slurmctld -c
    slurmd -N localhost
    for _ in $(seq 100); do
        if sinfo --noheader --format=%T 2>/dev/null | grep --quiet idle; then
            return
        fi
        sleep 0.2
    done
    echo "the node did not come up; see $folder/slurmctld.log and slurmd.log" >&2
    exit 1
}

stop() {
    export SLURM_CONF=$1/slurm.conf
    scancel --signal=KILL --full --user="$(id -un)" 2>/dev/null || true
    for name in slurmd slurmctld munged; do
        if [ -e "$1/$name.pid" ]; then
            kill "$(cat "$1/$name.pid")" 2>/dev/null || true
        fi
    done
}

"$1" "$2"
