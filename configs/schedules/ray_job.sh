#!/bin/sh
# A refresh on a Ray cluster, as a job: for RayCronJob (KubeRay), or for cron on any machine that reaches the cluster.
# The run folder must be on storage that every node sees. The job ends with the refresh's exit code.
set -eu
exec ray job submit --address "${RAY_DASHBOARD:-http://127.0.0.1:8265}" --working-dir "${CURATE_DIR:-/srv/curate}" -- \
    curate refresh configs/pretraining.yaml --run-dir "${RUN_DIR:-/shared/runs/nightly}" --address auto --json
