"""A stand-in for wandb: what toast calls of it, with the real signatures. Every call is written down in CALLS."""

from pathlib import Path

CALLS = []


class Settings:
    def __init__(
        self, *, console, disable_code, disable_git, login_timeout, x_disable_machine_info, x_disable_meta,
        x_disable_stats, x_save_requirements,
    ):  # fmt: skip
        assert console == "off"
        assert disable_code
        assert disable_git
        assert x_disable_machine_info
        assert x_disable_meta
        assert x_disable_stats
        assert not x_save_requirements
        assert login_timeout > 0


class Table:
    def __init__(self, columns=None, data=None, rows=None, dataframe=None, dtype=None, optional=True, allow_mixed_types=False):  # fmt: skip
        assert all(len(row) == len(columns) for row in data)
        self.rows = [dict(zip(columns, row, strict=True)) for row in data]


class Image:
    def __init__(self, data_or_path, mode=None, caption=None):
        self.path = Path(data_or_path)
        assert self.path.is_file()


class Run:
    url, offline, dir = "https://wandb.example/1", False, "wandb/1/files"

    def __init__(self):
        self.summary = {}

    def log(self, data, step=None, commit=None):
        CALLS.append(("log", data))

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        CALLS.append(("finish", (self.summary, kind)))


def init(entity=None, project=None, dir=None, id=None, name=None, notes=None, tags=None, config=None,
         config_exclude_keys=None, config_include_keys=None, allow_val_change=None, group=None, job_type=None, mode=None,
         force=None, reinit=None, resume=None, resume_from=None, fork_from=None, save_code=None, tensorboard=None,
         sync_tensorboard=None, monitor_gym=None, settings=None):  # fmt: skip
    print("a greeting")
    assert isinstance(settings, Settings)
    CALLS.append(("init", {"project": project, "name": name, "group": group, "verb": job_type, "settings": config}))
    return Run()
