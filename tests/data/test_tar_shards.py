"""Tar files of images and labels, as WebDataset packs them: read in place, the same as the images in class folders."""

import io
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import save_image_folder
from tests.data.conftest import all_pixels, folder
from toast_cli.data.image_warnings import warnings_of
from toast_cli.data.images import Images
from toast_cli.data.tar_shards import TarRows
from toast_cli.errors import ToastError

Files = Sequence[tuple[str, bytes]]


def pack(path: Path, files: Files) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def picture(value: int = 0, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(buffer, kind)
    return buffer.getvalue()


def samples(images: Images) -> Files:
    """The images as a writer of shards packs them, a file with the class number beside each."""
    return [
        member
        for position, (index, label) in enumerate(zip(images.indices, images.labels, strict=True))
        for member in (
            (f"{position:04}.png", images.split.encoded(int(index))),
            (f"{position:04}.cls", b"%d\n" % label),
        )
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The images of ``tmp_path / "set"`` in three train shards and one of test images."""
    plain = folder(save_image_folder(tmp_path / "set"))
    train = samples(plain.train)
    for number, part in enumerate((train[:10], train[10:14], train[14:])):
        pack(tmp_path / "shards" / f"train-{number:06}.tar", part)
    pack(tmp_path / "shards" / "test-000000.tar", samples(plain.test))
    (tmp_path / "shards" / "classnames.txt").write_text("kind0\nkind1\n")
    return tmp_path / "shards"


def small(tmp_path: Path, files: Files) -> Path:
    """A train shard of these files beside a good one, and a test shard."""
    good = [("a.png", picture()), ("a.cls", b"0")]
    pack(tmp_path / "x" / "train-0.tar", good)
    pack(tmp_path / "x" / "test-0.tar", good)
    return pack(tmp_path / "x" / "train-1.tar", files).parent


@pytest.mark.parametrize(
    "settings", [{}, {"train_images": 6, "fit_images": [3, 7]}, {"streaming": True}, {"workers": 2}]
)
def test_the_same_as_class_folders(root: Path, settings: dict):
    workers = settings.pop("workers", 0)
    plain, packed = folder(root.parent / "set", **settings), folder(root, **settings)
    assert packed.classes == plain.classes == ("kind0", "kind1")
    for one, other in zip((*plain.fit, plain.train, plain.test), (*packed.fit, packed.train, packed.test), strict=True):
        assert (one.labels == other.labels).all()
        assert torch.equal(all_pixels(one), all_pixels(other, workers=workers))
    assert packed.fingerprint() == plain.fingerprint(), "the same images with the same labels"


@pytest.mark.parametrize(
    ("names", "given"),
    [
        (["train/0.tar", "train/10.tar", "test/0.tar"], "."),
        (["train.tar", "test.tar"], "."),
        (["my-set_train-0000.tar", "my-set_test-0000.tar", "my-set_trainval-0000.tar"], "."),
        (["deep/train-1.tar", "deep/test-1.tar", "deep/train-1.txt"], "deep/*.tar"),
        (["deep/train/1.tar", "deep/test/1.tar"], "deep/*/*.tar"),
        (["a [v1]/train-1.tar", "a [v1]/test-1.tar", "a v/train-1.tar"], "a [v1]"),
    ],
)
def test_where_shards_lie(names: list[str], given: str, tmp_path: Path):
    for name in names:
        pack(tmp_path / "x" / name, [("a.png", picture()), ("a.cls", b"0")])
    loaded = folder(tmp_path / "x" / given, fit_images=1)
    assert len(loaded.train) == sum(
        "train/" in name or "train-" in name or "train." in name
        for name in names
        if "a v" not in name and "txt" not in name
    )
    assert len(loaded.test) == 1


def test_a_folder_that_tar_files_were_unpacked_to_is_read_itself(root: Path):
    expected = folder(root.parent / "set")
    for split in ("train", "test"):
        pack(root.parent / "set" / f"{split}.tar", [("x.txt", b"")])
    assert folder(root.parent / "set").fingerprint() == expected.fingerprint()


def test_members_in_any_order_and_others_between_them(tmp_path: Path):
    files = [("b.JPG", picture(9, "JPEG")), ("./deep/b.x.png", picture(7)), ("b.txt", b"a caption"), ("._b.jpg", b"?"), ("README", b""),
             ("c.heic", b"?"), ("c.cls", b"1"), ("./deep/b.cls", b"1"), ("b.cls", b" 1\n")]  # fmt: skip
    root = small(tmp_path, files)
    loaded = folder(root, fit_images=1)
    assert loaded.classes == ("0", "1")
    assert loaded.train.labels.tolist() == [0, 1, 1]
    assert all_pixels(loaded.train)[:, 0, 0, 0].tolist()[::2] == [0, 7]
    assert f"{root}: 3 samples without an image are left out (2 without an ending, 1 .heic)" in warnings_of(loaded)


def test_labels_from_json(tmp_path: Path):
    for split in ("train", "test"):
        rows = [{"label": 1, "kind": "tea", "size": [1, 2]}, {"label": 0, "kind": "café", "size": 3}]
        pack(
            tmp_path / f"{split}.tar",
            [
                f
                for i, row in enumerate(rows)
                for f in ((f"{i}.png", picture(i)), (f"{i}.json", json.dumps(row).encode()))
            ],
        )
    assert folder(tmp_path, fit_images=1).train.labels.tolist() == [1, 0]
    loaded = folder(tmp_path, fit_images=1, label_column="kind")
    assert (loaded.classes, loaded.train.labels.tolist()) == (("café", "tea"), [1, 0])
    with pytest.raises(ToastError, match=r"data.label_column=size is not a column.*label \(Value\), kind \(Value\)"):
        folder(tmp_path, fit_images=1, label_column="size")


@pytest.mark.slow
def test_a_run_gives_the_same_numbers(root: Path, toast):
    """Accuracies bit for bit, and all else in the rows but the name of the data set."""
    rows = []
    for place in (root, root.parent / "set"):
        words = ["data=folder", f"data.path={place}", "data.label=x", "data.fit_images=8", "spans=[9-11]", "device=cpu"]
        status, out, _ = toast("run", *words)
        assert status == 0
        rows.append(Path(out.splitlines()[-1]).read_text())
    assert rows[0] == rows[1]
    assert len(rows[0].splitlines()) == 3


def test_names_that_repeat_get_their_number(root: Path):
    (root / "classnames.txt").write_text("crane\ncrane\ndog\n")
    assert folder(root).classes == ("crane (0)", "crane (1)", "dog")


def test_a_draw_reads_just_the_images_that_are_drawn(root: Path, monkeypatch: pytest.MonkeyPatch):
    loaded, read = folder(root), []
    content = TarRows._content
    monkeypatch.setattr(
        TarRows, "_content", lambda self, row, kind: read.append((row, kind)) or content(self, row, kind)
    )
    all_pixels(loaded.fit[0])
    assert read == [(row, "image") for row in loaded.fit[0].indices]


def test_a_bad_image_is_named(root: Path):
    pack(root / "test-000000.tar", [("x/y.png", b"no picture"), ("x/y.cls", b"0")])
    with pytest.raises(ToastError, match=r"test image 0 \(.*/test-000000.tar/x/y.png\) cannot be decoded"):
        all_pixels(folder(root).test)


def tar_of(kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo("b.png")
    member.type, member.linkname = kind, "/etc/passwd"
    return member


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(kind: bytes, tmp_path: Path):
    root = small(tmp_path, [])
    with tarfile.open(root / "train-1.tar", "w") as tar:
        tar.addfile(tar_of(kind))
    what = {tarfile.CHRTYPE: "a device", tarfile.FIFOTYPE: "a pipe"}.get(kind, "a link")
    with pytest.raises(
        ToastError, match=f"train-1.tar holds b.png, {what}, and toast reads ordinary files alone: pack"
    ):
        folder(root)


PNG = picture()
WRONG = {
    "no_label": ([("b.png", PNG)], "train-1.tar holds b.png without a label: pack its class as a whole number in a file of the same name"),
    "two_images": ([("b.png", PNG), ("b.mask.jpg", PNG)], "train-1.tar holds two images under the key b, b.png and b.mask.jpg: give each"),
    "twice": ([("b.png", PNG), ("b.cls", b"0")] * 2, "train-1.tar holds two images under the key b, b.png and b.png: give each image a key"),
    "no_image": ([("b.tar", b""), ("c.cls", b"0")], r"train-1.tar holds no images \(1 .cls, 1 .tar\): pack each image beside its label"),
    "empty": ([], r"train-1.tar holds no images \(it is empty\): pack each image"),
    "word": ([("b.png", PNG), ("b.cls", b"cat")], "train-1.tar/b.png has the label 'cat' in its .cls: give the class as a whole number from 0"),
    "minus": ([("b.png", PNG), ("b.cls", b"-1")], "has the label '-1' in its .cls: give the class as a whole number from 0"),
    "long": ([("b.png", PNG), ("b.cls", b"0" * 2**20 + b"1")], "holds b.cls with 1.0 MB, more than the 1.0 MB that toast reads as a label"),
    "mixed": ([("b.png", PNG), ("b.json", b'{"label": 1}')], "data.label_column=label is empty in 1 of 2 rows: give these rows a label"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_a_shard_cannot_hold(what: str, tmp_path: Path):
    files, told = WRONG[what]
    with pytest.raises(ToastError, match=told):
        folder(small(tmp_path, files), fit_images=1)


@pytest.mark.parametrize(("written", "told"), [(b"[3]", "is no object with fields: pack one"), (b"{", "cannot be read .*: repair it"),
                                               (b"[" * 10**5, "cannot be read .*: repair it")])  # fmt: skip
def test_json_that_is_no_table(written: bytes, told: str, tmp_path: Path):
    file = pack(tmp_path / "train.tar", [("b.png", PNG), ("b.json", written)])
    with pytest.raises(ToastError, match=rf"The .json beside {file}/b.png {told}"):
        TarRows([str(file)])


def test_labels_of_several_kinds(tmp_path: Path):
    rows = TarRows(
        [
            str(
                pack(
                    tmp_path / "a.tar",
                    [("a.png", PNG), ("a.json", b'{"k": "x"}'), ("b.png", PNG), ("b.json", b'{"k": 1}')],
                )
            )
        ]
    )
    with pytest.raises(ToastError, match="data.label_column=k holds int, str in the .json files of"):
        rows.column("k")


def test_a_class_without_a_name(root: Path):
    (root / "classnames.txt").write_text("kind0\n")
    with pytest.raises(
        ToastError, match=r"has the label 1, and the file of class names has lines for 0 to 0: add the miss"
    ):
        folder(root)


@pytest.mark.parametrize("left", [0, 100, 512, 700, 1024 + 512, -10240, -9000])
def test_a_shard_that_is_cut_off_at_any_place(left: int, tmp_path: Path):
    """In a header, in an image, between two files, and without its end mark."""
    root = small(tmp_path, [("b.png", PNG), ("b.cls", b"1")])
    file = root / "train-1.tar"
    whole = file.read_bytes().rstrip(b"\0")
    content = file.read_bytes()[: 4 * 512] if left < 0 else whole[:left]
    file.write_bytes(content if left != -9000 else content[:-1])
    with pytest.raises(
        ToastError, match="train-1.tar cannot be read as a tar file .*: it is cut off or damaged, so copy or"
    ):
        folder(root)


def test_a_damaged_header_is_no_end(tmp_path: Path):
    root = small(tmp_path, [("b.png", PNG), ("b.cls", b"1"), ("c.png", PNG), ("c.cls", b"1")])
    content = bytearray((root / "train-1.tar").read_bytes())
    content[content.index(b"c.png") + 1] ^= 1
    (root / "train-1.tar").write_bytes(content)
    with pytest.raises(ToastError, match=r"cannot be read as a tar file \(no end mark at byte \d+\)"):
        folder(root)


@pytest.mark.parametrize("mode", ["gz", "bz2", "xz"])
def test_compressed_shards_are_refused(mode: str, root: Path):
    for file in root.glob("*.tar"):
        with tarfile.open(f"{file}.{mode}", f"w:{mode}") as tar:
            tar.add(file, arcname="x.png")
        file.unlink()
    with pytest.raises(
        ToastError, match=rf"train-000000.tar.{mode} is compressed with .*, and toast reads .*: decompress it to"
    ):
        folder(root)


def test_a_header_that_asks_for_memory(tmp_path: Path):
    """An extended header of two gigabytes, in a file with a hole of that size."""
    file = tmp_path / "train.tar"
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 2**31
    file.write_bytes(header.tobuf())
    os.truncate(file, 2**31 + 4096)
    with pytest.raises(
        ToastError, match=r"cannot be read as a tar file \(a header says that it has 2147483648 bytes\)"
    ):
        TarRows([str(file)])


def test_names_that_lead_elsewhere_are_names(tmp_path: Path):
    rows = TarRows(
        [
            str(
                pack(
                    tmp_path / "a.tar",
                    [("../../b.png", PNG), ("../../b.cls", b"0"), ("/etc/c.png", PNG), ("/etc/c.cls", b"1")],
                )
            )
        ]
    )
    assert rows.column("label") == [0, 1]
    assert rows.value(1, "image") == {"bytes": PNG, "path": f"{tmp_path}/a.tar//etc/c.png"}
    assert {path.name for path in tmp_path.iterdir()} == {"a.tar"}


def test_a_split_without_shards(root: Path):
    (root / "test-000000.tar").rename(root / "val-000000.tar")
    assert len(folder(root, test_split="val").test) == 12
    with pytest.raises(
        ToastError, match=r"has no tar files of split 'test' \(it has train, val\): set data.train_split"
    ):
        folder(root)
    with pytest.raises(
        ToastError, match=r"\*.tar has no tar files of split 'test' \(it has train, val\): set data.train"
    ):
        folder(root / "*.tar")


@pytest.mark.parametrize(("name", "given"), [("mine.tar", "mine.tar"), ("000000.tar", "*.tar")])
def test_shards_whose_names_name_no_split(name: str, given: str, root: Path):
    (root / "test-000000.tar").rename(root.parent / name)
    has = {"mine.tar": r" \(it has mine\)", "000000.tar": ""}[name]
    with pytest.raises(
        ToastError, match=rf"{given.replace('*', '.')} has no tar files of split 'train'{has}: set data.train_split"
    ):
        folder(root.parent / given)


def test_one_shard_for_two_splits(tmp_path: Path):
    pack(tmp_path / "train-test-0.tar", [("a.png", PNG), ("a.cls", b"0")])
    with pytest.raises(
        ToastError, match="train-test-0.tar has the names of two splits in its own, train and test: put it"
    ):
        folder(tmp_path)


def test_an_image_of_every_shard_in_other_processes(root: Path):
    rows = folder(root).train.split.rows
    assert isinstance(rows, TarRows)
    part = rows.select(np.array([11, 0]))
    assert [part.column("label"), len(part)] == [[1, 0], 2]
    assert part.value(1, "image")["bytes"] == rows.value(0, "image")["bytes"]
