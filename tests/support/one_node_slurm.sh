#!/usr/bin/env bash
# Run a command beside a real Slurm of one node: one_node_slurm.sh FOLDER CPUS COMMAND…
# Ends with the command's exit code. Needs root and Debian's slurm-wlm and munge; no systemd, no cgroups, no network.
#
# Everything runs in namespaces of its own. Mounts: Slurm's job steps read /etc/slurm whatever $SLURM_CONF says, so FOLDER/etc
# is mounted there and the host's /etc stays as it is. Processes: daemons, jobs and command end with this script, even if it
# is killed, and none can outlive it.
set -euo pipefail

if [ -z "${ONE_NODE_SLURM_INSIDE:-}" ]; then
    mkdir -p "$1"
    [ -d /etc/slurm ] || { echo "/etc/slurm is missing: apt-get install slurm-wlm" >&2; exit 2; }
    ONE_NODE_SLURM_INSIDE=1 setpriv --pdeathsig KILL \
        unshare --mount --propagation private --pid --fork --kill-child --mount-proc "$0" "$@" &
    trap 'exit 143' INT TERM
    wait $!
    exit
fi

folder=$(realpath "$1") cpus=$2
shift 2
unset ONE_NODE_SLURM_INSIDE
node=$(hostname -s)
mkdir -p "$folder"/{etc,state,spool,munge,log}
chmod 755 "$folder" "$folder"/*
chmod 700 "$folder/munge"

for _ in $(seq 50); do # two neighbouring ports that nothing listens on, below those of outgoing connections
    port=$((10000 + RANDOM % 20000))
    (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null || (exec 3<> "/dev/tcp/127.0.0.1/$((port + 1))") 2> /dev/null || break
done

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
SelectTypeParameters=CR_Core_Memory
MinJobAge=36000
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0
GresTypes=gpu
NodeName=$node NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$(slurmd -C | grep -o 'RealMemory=[0-9]*' | cut -d= -f2) Gres=gpu:2 State=UNKNOWN
PartitionName=all Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
# A bare count of GPUs makes the node invalid: any two device files will do.
echo "Name=gpu File=/dev/tty[0-1]" > "$folder/etc/gres.conf"
mount --bind "$folder/etc" /etc/slurm

head -c 1024 /dev/urandom > "$folder/munge/key"
chmod 400 "$folder/munge/key"
munged --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munge/pid" \
    --log-file="$folder/munge/log" --seed-file="$folder/munge/seed" --force
slurmctld
slurmd -N "$node"
for _ in $(seq 150); do
    [ "$(sinfo --noheader --format=%t 2> /dev/null)" = idle ] && break
    sleep 0.2
done
[ "$(sinfo --noheader --format=%t)" = idle ] || { tail -n 5 "$folder"/log/*.log >&2; echo "the node did not come up" >&2; exit 2; }
"$@"
