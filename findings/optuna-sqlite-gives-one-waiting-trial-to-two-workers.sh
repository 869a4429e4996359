#!/bin/sh
# Optuna hands a waiting trial to several processes at once where its storage is SQLite.
#
# Seen with optuna 5.0.0, SQLAlchemy 2.1.9, Python 3.11, Linux. `Study.ask()` takes an enqueued trial by asking the storage to
# set it from WAITING to RUNNING, which only one process is meant to win. RDBStorage reads the row under a row lock
# (`FOR UPDATE`), and SQLite has none: two processes read WAITING, and both win. Four workers ran 13 of 60 trials twice; one of
# them then fails when it tells its result of a trial that is finished. With a journal file as the storage, each trial is run
# once. Expected: one process per trial with every storage, or a refusal.
#
# Output seen (the first number differs between runs):
#   sqlite    60 trials, 13 of them run twice or more
#   journal   60 trials, 0 of them run twice or more
set -eu
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv venv
venv/bin/python -m pip install --quiet optuna==5.0.0 SQLAlchemy==2.1.9
cat > trials.py <<'PY'
import collections
import subprocess
import sys
import warnings

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

TRIALS, WORKERS = 60, 4
warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.ERROR)
kind, role = sys.argv[1:]
storage = "sqlite:///trials.db" if kind == "sqlite" else JournalStorage(JournalFileBackend("trials.log"))
if role == "worker":
    study = optuna.load_study(study_name="s", storage=storage)
    while study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        trial = study.ask()
        if "job" in trial.user_attrs:
            print(trial.number, flush=True)
        try:
            study.tell(trial, 0.0)
        except (ValueError, RuntimeError):  # the other one that ran it was faster
            pass
    sys.exit()
study = optuna.create_study(study_name="s", storage=storage)
for job in range(TRIALS):
    study.enqueue_trial({}, user_attrs={"job": job})
command = [sys.executable, __file__, kind, "worker"]
workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(WORKERS)]
runs = collections.Counter(number for worker in workers for number in worker.communicate()[0].split())
print(len(runs), sum(count > 1 for count in runs.values()))
PY
for kind in sqlite journal; do
    set -- $(venv/bin/python trials.py "$kind" main)
    printf '%-9s %s trials, %s of them run twice or more\n' "$kind" "$1" "$2"
    case $kind in
        sqlite) [ "$2" -gt 0 ] || { echo "changed: no trial was run twice with SQLite" >&2; exit 1; } ;;
        journal) [ "$2" -eq 0 ] || { echo "changed: trials are run twice with a journal" >&2; exit 1; } ;;
    esac
done
