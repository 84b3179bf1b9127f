#!/usr/bin/env bash
# Start a real Slurm of one node with two pretended GPUs, run a command beside it, stop it: one_node_slurm.sh FOLDER CPUS COMMAND…
# Needs root, and Debian's slurm-wlm and munge. All state lies in FOLDER. Slurm's job steps read /etc/slurm/slurm.conf whatever
# $SLURM_CONF says, so that folder is bind-mounted in a mount namespace of its own: the host's /etc is not touched.
set -euo pipefail

if [ -z "${ONE_NODE_SLURM_INSIDE:-}" ]; then
    ONE_NODE_SLURM_INSIDE=1 exec unshare --mount --propagation private "$0" "$@"
fi

folder=$1 cpus=$2
shift 2
node=$(hostname -s)
mkdir -p "$folder"/{etc,state,spool,munge,log}
chmod 755 "$folder" "$folder"/*
chmod 700 "$folder/munge"

port=$((20000 + RANDOM % 20000))
cat > "$folder/etc/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0
GresTypes=gpu
NodeName=$node NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=1000000 Gres=gpu:2 State=UNKNOWN
PartitionName=all Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
# A bare count of GPUs makes the node invalid: any two device files will do.
echo "Name=gpu File=/dev/tty[0-1]" > "$folder/etc/gres.conf"
sed -i "s/RealMemory=1000000/RealMemory=$(slurmd -C | grep -o 'RealMemory=[0-9]*' | cut -d= -f2)/" "$folder/etc/slurm.conf"

mkdir -p /etc/slurm
mount --bind "$folder/etc" /etc/slurm

stop() {
    for pid in "$folder"/slurmd.pid "$folder"/slurmctld.pid "$folder"/munge/pid; do
        [ -f "$pid" ] && kill "$(cat "$pid")" 2> /dev/null || true
    done
}
trap stop EXIT

dd if=/dev/urandom of="$folder/munge/key" bs=1024 count=1 status=none
chmod 400 "$folder/munge/key"
munged --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munge/pid" \
    --log-file="$folder/munge/log" --seed-file="$folder/munge/seed" --force
slurmctld
slurmd -N "$node"
for _ in $(seq 100); do
    [ "$(sinfo --noheader --format=%t 2> /dev/null)" = idle ] && break
    sleep 0.2
done
[ "$(sinfo --noheader --format=%t)" = idle ] || { echo "the node did not come up; logs: $folder/log" >&2; exit 1; }
"$@"
