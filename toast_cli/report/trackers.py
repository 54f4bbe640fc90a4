"""How each tracker takes a finished run: Weights & Biases, Trackio, MLflow.

Each function sends one run to a project and says where it is now. Their packages come with ``toast-cli[trackers]`` and are
imported only here. What they would find out for themselves about the machine, its user and the code is switched off.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SILENT = {  # of wandb: no output of the terminal, no commit, no command line, no host, no load of the machine
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "login_timeout": 60,  # seconds that it asks for a key, where there is none
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
_PARAMS_AT_ONCE = 100  # MLflow takes no more


@dataclass(frozen=True)
class Finished:
    """What a tracker gets of a finished run.

    ``name`` is that of its folder, ``group`` that of the runs it belongs to; ``settings`` are plain values by dotted key,
    ``numbers`` those of the plan to take. ``tables`` are rows by the table's name, ``pictures`` PNG files by theirs.
    """

    name: str
    group: str
    verb: str
    settings: Mapping[str, Any]
    numbers: Mapping[str, float]
    tables: Mapping[str, Sequence[Any]]
    pictures: Mapping[str, Path]


def _columns(rows: Sequence[Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(rows[0])]


def _cells(rows: Sequence[Any]) -> list[list[Any]]:
    return [[getattr(row, name) for name in _columns(rows)] for row in rows]


def _wandb(project: str, run: Finished) -> str:
    import wandb

    with wandb.init(
        project=project,
        name=run.name,
        group=run.group,
        job_type=run.verb,
        config=dict(run.settings),
        settings=wandb.Settings(**_SILENT),
    ) as sent:
        tables = {
            name: wandb.Table(columns=_columns(rows), data=_cells(rows), allow_mixed_types=True)
            for name, rows in run.tables.items()
        }
        sent.log({**tables, **{name: wandb.Image(str(path)) for name, path in run.pictures.items()}})
        sent.summary.update(dict(run.numbers))
    return f"offline, for wandb sync: {Path(sent.dir).parent}" if sent.offline else str(sent.url)


def _trackio(project: str, run: Finished) -> str:
    import trackio

    trackio.init(
        project=project,
        name=run.name,
        group=run.group,
        config={**run.settings, "verb": run.verb},
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )
    try:
        tables = {name: trackio.Table(columns=_columns(rows), data=_cells(rows)) for name, rows in run.tables.items()}
        pictures = {name: trackio.Image(str(path)) for name, path in run.pictures.items()}
        trackio.log({**run.numbers, **tables, **pictures})
    finally:
        trackio.finish()
    return f"project {project}"


def _mlflow(project: str, run: Finished) -> str:
    import mlflow
    from mlflow.entities import Metric, Param

    client = mlflow.MlflowClient()
    experiment = mlflow.set_experiment(project)  # made if there is none
    made = client.create_run(
        experiment.experiment_id, tags={"verb": run.verb, "group": run.group}, run_name=run.name
    ).info.run_id
    status = "FAILED"
    try:
        now = int(time.time() * 1000)
        params = [Param(key, str(value)) for key, value in run.settings.items()]
        for start in range(0, len(params), _PARAMS_AT_ONCE):
            client.log_batch(made, params=params[start : start + _PARAMS_AT_ONCE])
        client.log_batch(made, metrics=[Metric(key, value, now, 0) for key, value in run.numbers.items()])
        for name, rows in run.tables.items():
            columns = zip(*_cells(rows), strict=True)
            client.log_table(made, dict(zip(_columns(rows), map(list, columns), strict=True)), f"{name}.json")
        for path in run.pictures.values():
            client.log_artifact(made, str(path))
        status = "FINISHED"
    finally:
        client.set_terminated(made, status)
    return f"run {made} of experiment {project}"


TRACKERS: Mapping[str, Callable[[str, Finished], str]] = {"wandb": _wandb, "trackio": _trackio, "mlflow": _mlflow}
