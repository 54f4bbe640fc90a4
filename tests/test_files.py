"""Files are written whole or not at all."""

import json

import pytest

from toast_cli.files import write_atomically


def test_writes_are_whole_or_not_at_all(tmp_path, monkeypatch: pytest.MonkeyPatch):
    write_atomically(tmp_path / "a.json", json.dumps([1]))
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "a.json", json.dumps([1, 2]))
    assert json.loads((tmp_path / "a.json").read_text()) == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
