#!/bin/sh
# A study's jobs on Kubernetes, by kubectl, called as profiles/cluster-generic/config.yaml says (docs/how-to/cluster.md).
set -eu

namespace=studies                         # of the jobs
image=registry.example.org/collabench:0.1 # with the environment: the image of the pod in which you call collabench
claim=project-claim                       # the persistent volume claim with the project's folder
mount=/home/study                         # where that pod mounts it, as every job will

action=$1
shift
case $action in
submit) # minutes, megabytes, cores, GPUs and a script: prints the job's name
    if [ "$4" = 0 ]; then gpus=; else gpus=", nvidia.com/gpu: $4"; fi
    kubectl create --namespace "$namespace" --output 'jsonpath={.metadata.name}' --filename - <<JOB
apiVersion: batch/v1
kind: Job
metadata: {generateName: collabench-}
spec:
  backoffLimit: 0
  ttlSecondsAfterFinished: 86400
  template:
    spec:
      restartPolicy: Never
      activeDeadlineSeconds: $(($1 * 60))
      containers:
        - name: job
          image: "$image"
          command: [sh, "$5"]
          workingDir: "$PWD"
          resources: {requests: {cpu: $3, memory: ${2}M}, limits: {memory: ${2}M$gpus}}
          volumeMounts: [{name: project, mountPath: "$mount"}]
      volumes: [{name: project, persistentVolumeClaim: {claimName: "$claim"}}]
JOB
    ;;
status) # a job's name: prints running, success or failed
    asked='jsonpath={.status.succeeded}/{.status.failed}'
    case $(kubectl get job "$1" --namespace "$namespace" --ignore-not-found --output "$asked" || echo /) in
    [1-9]*/*) echo success ;;
    /) echo running ;; # or the cluster does not answer
    *) echo failed ;;  # or somebody has deleted it
    esac
    ;;
cancel) # names of jobs
    kubectl delete job "$@" --namespace "$namespace" --ignore-not-found --wait=false
    ;;
*)
    echo "$0: the first word must be submit, status or cancel" >&2
    exit 2
    ;;
esac
