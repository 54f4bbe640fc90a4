"""A stand-in for MLflow: what toast calls of it, with the real signatures. Every call is written down in CALLS."""

from pathlib import Path
from types import SimpleNamespace

CALLS = []


def set_experiment(experiment_name=None, experiment_id=None):
    CALLS.append(("experiment", experiment_name))
    return SimpleNamespace(experiment_id="7")


class MlflowClient:
    def create_run(self, experiment_id, start_time=None, tags=None, run_name=None):
        assert experiment_id == "7"
        CALLS.append(("run", (run_name, tags)))
        return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

    def log_batch(self, run_id, metrics=(), params=(), tags=(), synchronous=None):
        assert run_id == "r1"
        assert len(params) <= 100, "what a server takes"
        assert all(isinstance(each.value, str) for each in params)
        CALLS.append(("batch", {each.key: each.value for each in (*metrics, *params)}))

    def log_table(self, run_id, data, artifact_file):
        assert run_id == "r1"
        CALLS.append(("table", (artifact_file, data)))

    def log_artifact(self, run_id, local_path, artifact_path=None):
        assert run_id == "r1"
        assert Path(local_path).is_file()
        CALLS.append(("picture", local_path))

    def set_terminated(self, run_id, status=None, end_time=None):
        assert run_id == "r1"
        CALLS.append(("end", status))
