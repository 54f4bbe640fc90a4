"""The part of the stand-in by which files come to the hub: repositories are made, and files are sent and committed.

It takes what huggingface_hub sends without Xet: ``/api/repos/create``, ``/api/validate-yaml``, ``preupload``, large files by git-lfs's
batch interface to the CDN, and one ``commit`` of lines of JSON. ``GOOD_TOKEN`` may write to the repositories of ``OWNER``.
"""

import base64
import hashlib
import json
import re
from typing import Any

import yaml

GOOD_TOKEN, READ_TOKEN = "hf_good", "hf_read"
OWNER = "me"
LARGE = (".safetensors", ".parquet", ".bin", ".onnx")  # what the hub keeps outside git
_LICENCES = ("apache-2.0", "mit", "other", "cc-by-nc-4.0")  # some of those that the hub knows


class Writes:
    """What a handler of requests does with those that change something; ``self.hub``, ``_json`` and ``_error`` are the handler's."""

    hub: Any
    headers: Any

    def _json(self, value: Any, headers: dict[str, str] | None = None) -> None:
        raise NotImplementedError

    def _error(self, status: int, code: str | None, message: str, headers: dict[str, str] | None = None) -> None:
        raise NotImplementedError

    def wrote(self, path: str, body: bytes) -> bool:
        """Answer a POST that changes something; False if this is none."""
        if path == "/api/validate-yaml":
            self._check_card(json.loads(body)["content"])
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif found := re.fullmatch(r"/api/models/(?P<name>[^/]+/[^/]+)/(?P<what>preupload|commit)/main", path):
            if self._may_write(found["name"]):
                lines = [json.loads(line) for line in body.splitlines()]
                self._preupload(found["name"], lines[0]) if found["what"] == "preupload" else self._commit(
                    found["name"], lines
                )
        elif found := re.fullmatch(r"/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            if self._may_write(found["name"]):
                self._batch(found["name"], json.loads(body)["objects"])
        elif re.fullmatch(r"/[^/]+/[^/]+/verify", path):
            asked = json.loads(body)
            known = len(self.hub.blobs.get(asked["oid"], b"")) == asked["size"]
            self._json({}) if known else self._error(422, None, "Size mismatch")
        else:
            return False
        return True

    def put(self, path: str, body: bytes) -> None:
        """Take a large file, at the CDN."""
        oid = path.rpartition("/")[2]
        if hashlib.sha256(body).hexdigest() != oid:
            self._error(400, None, "Hash mismatch")
            return
        self.hub.blobs[oid] = body
        self._json({})

    def _may_write(self, name: str, exists: bool = True) -> bool:
        """Whether the token may write there; after saying so if not."""
        signed = self.headers.get("Authorization") == f"Bearer {GOOD_TOKEN}"
        if not signed or name.partition("/")[0] != OWNER:
            self._error(403, None, "Forbidden: you don't have the rights to write here")
        elif exists and name not in self.hub.stored:
            self._error(404, "RepoNotFound", "Repository not found")
        else:
            return True
        return False

    def _check_card(self, content: str) -> None:
        told = yaml.safe_load(content.split("---")[1])
        wrong = [] if told.get("license") in _LICENCES else [{"message": '"license" must be one of a list'}]
        if wrong:
            self.hub.refused.append(told)
        self._json({"errors": wrong, "warnings": []}) if not wrong else self._error(400, None, wrong[0]["message"])

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if not self._may_write(name, exists=False):
            return
        if name in self.hub.stored:
            self._error(409, None, "You already created this model repo")
            return
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.hub.add(name, {".gitattributes": b""}, private=private)
        self._json({"url": f"{self.hub.endpoint}/{name}"})

    def _preupload(self, name: str, asked: dict[str, Any]) -> None:
        files = self.hub.stored[name].files
        self._json(
            {
                "files": [
                    {
                        "path": each["path"],
                        "uploadMode": "lfs" if each["path"].endswith(LARGE) else "regular",
                        "shouldIgnore": False,
                        "oid": _oid(each["path"], files[each["path"]]) if each["path"] in files else None,
                    }
                    for each in asked["files"]
                ]
            }
        )

    def _batch(self, name: str, objects: list[dict[str, Any]]) -> None:
        told = []
        for each in objects:
            actions = {
                "upload": {"href": f"{self.hub.cdn}/upload/{each['oid']}", "header": {}},
                "verify": {"href": f"{self.hub.endpoint}/{name}/verify", "header": {}},
            }
            told.append({**each, **({} if each["oid"] in self.hub.blobs else {"actions": actions})})
        self._json({"transfer": "basic", "objects": told})

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        changed: dict[str, bytes] = {}
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                changed[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile" and value["oid"] in self.hub.blobs:
                changed[value["path"]] = self.hub.blobs[value["oid"]]
            else:
                self._error(422, None, f"{line['key']} cannot be committed")
                return
        commit = self.hub.stored[name].change(changed)
        self._json({"success": True, "commitOid": commit, "commitUrl": f"{self.hub.endpoint}/{name}/commit/{commit}"})


def _oid(file: str, content: bytes) -> str:
    """The name of a file's content: that of git, or of git-lfs."""
    if file.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def front_of(files: dict[str, bytes]) -> dict[str, Any]:
    """What the front of a README.md says in YAML; empty without one."""
    parts = files.get("README.md", b"").decode().split("---")
    told = yaml.safe_load(parts[1]) if len(parts) > 2 else None
    return told if isinstance(told, dict) else {}
