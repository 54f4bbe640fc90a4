"""A stand-in for Trackio: what toast calls of it, with the real signatures. Every call is written down in CALLS."""

from pathlib import Path

CALLS = []


class Table:
    def __init__(self, columns=None, data=None, dataframe=None):
        self.rows = [dict(zip(columns, row, strict=True)) for row in data]


class Image:
    def __init__(self, value, caption=None):
        self.path = Path(value)
        assert self.path.is_file()


def init(project, name=None, group=None, space_id=None, server_url=None, dataset_id=None, bucket_id=None, config=None,
         resume="never", settings=None, private=None, embed=True, auto_log_gpu=None, auto_log_cpu=None):  # fmt: skip
    print("* Trackio project initialized")
    assert (embed, auto_log_gpu, auto_log_cpu) == (False, False, False)
    CALLS.append(("init", {"project": project, "name": name, "group": group, "settings": config}))


def log(metrics, step=None):
    CALLS.append(("log", metrics))


def finish():
    CALLS.append(("finish", None))
