"""Backup while it serves, restore into an empty directory; a broken or hostile backup is refused."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from service_world import OwnClock, World

from septet.drivers.blobs.files import FileBlobs
from septet.drivers.blobs.trees import DirectoryTrees
from septet.drivers.store.sqlite.store import SqliteStore
from septet.drivers.vault.aesgcm import AesGcmVault
from septet.model.errors import Conflict, Corrupt, InvalidInput, SeptetError
from septet.model.objects import Secret
from septet.service import commands as c
from septet.service.restore import Restored, check_empty, restore


async def fill(world: World) -> tuple[str, str]:
    """A namespace with a secret, a function with source, and a tree with a link and an executable."""
    await world.run(c.ApplySecret(namespace="default", name="db", data={"password": b"canary"}))
    blob = await world.blob(data=b"source" * 1000)
    await world.function(source=blob)
    work = await world.trees.create("w")
    (work / "code").mkdir()
    (work / "code" / "main.py").write_text("x = 1\n")
    (work / "code" / "run.sh").write_text("#!/bin/sh\n")
    (work / "code" / "run.sh").chmod(0o755)
    (work / "code" / "absolute").symlink_to("/usr/bin/env")
    (work / "code" / ("long" * 40)).mkdir()
    (work / "empty").mkdir()
    return blob, await world.trees.freeze("w")


async def save(world: World, key: bool = False) -> bytes:
    stream = await world.run(c.Backup(key=key))
    return b"".join([chunk async for chunk in stream])


async def put_back(data: bytes, folder: Path) -> Restored:
    folder.mkdir()
    archive = folder.with_suffix(".tar")
    archive.write_bytes(data)
    return await restore(
        archive,
        store=folder / "septet.db",
        key=folder / "vault.key",
        blobs=FileBlobs(folder / "blobs"),
        trees=DirectoryTrees(folder / "trees"),
    )


async def test_what_was_saved_comes_back(world: World, tmp_path: Path) -> None:
    blob, tree = await fill(world)
    folder = tmp_path / "new"
    restored = await put_back(await save(world, key=True), folder)
    assert (restored.blobs, restored.trees, restored.key) == (1, 1, True)
    store = SqliteStore(folder / "septet.db", OwnClock())
    try:
        assert await store.get("Function", "default", "hello") == await world.store.get("Function", "default", "hello")
        secret = await store.get("Secret", "default", "db")
        assert isinstance(secret, Secret)
        vault = AesGcmVault((folder / "vault.key").read_bytes())
        assert vault.open(secret.spec.sealed["password"], "default/db/password") == b"canary"
    finally:
        await store.close()
    assert await FileBlobs(folder / "blobs").read(blob) == b"source" * 1000
    root = DirectoryTrees(folder / "trees").path(tree)
    assert (root / "code" / "absolute").readlink() == Path("/usr/bin/env")
    assert (root / "code" / "run.sh").stat().st_mode & 0o111
    assert (folder / "vault.key").stat().st_mode & 0o777 == 0o600


async def test_the_key_is_in_it_only_when_asked_for(world: World, tmp_path: Path) -> None:
    await fill(world)
    data = await save(world)
    assert b"k" * 32 not in data
    assert b"canary" not in data
    assert b"k" * 32 in await save(world, key=True)
    assert (await put_back(data, tmp_path / "new")).key is False
    assert not (tmp_path / "new" / "vault.key").exists()


async def test_nothing_is_left_behind_by_a_backup_that_nobody_reads(world: World) -> None:
    await fill(world)
    before = sorted(path.name for path in world.folder.iterdir())
    stream = await world.run(c.Backup())
    await anext(stream)
    await stream.aclose()
    assert sorted(path.name for path in world.folder.iterdir()) == before


async def test_a_backup_that_broke_off_is_refused(world: World, tmp_path: Path) -> None:
    await fill(world)
    data = await save(world)
    for number, length in enumerate((0, 100, 512, len(data) // 2, len(data) - 1024, len(data) - 1600)):
        with pytest.raises(InvalidInput):
            await put_back(data[:length], tmp_path / f"new{number}")
        assert not (tmp_path / f"new{number}" / "septet.db").exists()


async def test_a_changed_byte_is_found(world: World, tmp_path: Path) -> None:
    await fill(world)
    data = await save(world)
    for number, word in enumerate((b"sourcesource", b"x = 1\n")):
        at = data.index(word)
        with pytest.raises(Corrupt):
            await put_back(data[:at] + b"Z" + data[at + 1 :], tmp_path / f"new{number}")
        assert not (tmp_path / f"new{number}" / "septet.db").exists()


def rewritten(data: bytes, change: Callable[[tarfile.TarFile], None]) -> bytes:
    """The same backup with members that `change` adds before the last."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=out, mode="w") as new:
        for member in old:
            if member.name == "complete":
                change(new)
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    return out.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", data: bytes = b"x") -> Callable[..., None]:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        info.size = len(data) if kind == tarfile.REGTYPE else 0
        tar.addfile(info, io.BytesIO(data))

    return add


TREE = "trees/tree:" + "0" * 64


@pytest.mark.parametrize(
    "hostile",
    [
        member("../../outside"),
        member("/outside"),
        member("outside"),
        member("blobs/../../outside"),
        member("blobs/sha256:" + "0" * 64),
        member(f"{TREE}/../../../outside"),
        member(f"{TREE}/hard", tarfile.LNKTYPE, "/etc/passwd"),
        member(f"{TREE}/device", tarfile.CHRTYPE),
        member("store.db"),
        member("vault.key/../../outside"),
        lambda tar: [  # a link first, then a file through it
            member(f"{TREE}/way", tarfile.SYMTYPE, "../../../..")(tar),
            member(f"{TREE}/way/outside")(tar),
        ],
        lambda tar: [member(f"{TREE}/way", tarfile.SYMTYPE, "/")(tar), member(f"{TREE}/way", tarfile.DIRTYPE)(tar)],
    ],
)
async def test_a_hostile_backup_writes_nothing_outside(
    world: World, tmp_path: Path, hostile: Callable[[tarfile.TarFile], None]
) -> None:
    await fill(world)
    data = rewritten(await save(world), hostile)
    place = tmp_path / "room" / "deep"
    place.mkdir(parents=True)
    with pytest.raises((SeptetError, OSError)):
        await put_back(data, place / "new")
    assert not (place / "new" / "septet.db").exists()
    assert not [path for path in tmp_path.rglob("outside") if not path.is_relative_to(place / "new")]
    assert not Path("/outside").exists()


async def test_the_rewriting_alone_does_not_break_a_backup(world: World, tmp_path: Path) -> None:
    """The control of the test above."""
    await fill(world)
    restored = await put_back(rewritten(await save(world), lambda _tar: None), tmp_path / "new")
    assert restored.trees == 1


async def test_only_an_empty_directory_takes_a_backup(world: World, tmp_path: Path) -> None:
    with pytest.raises(Conflict):
        check_empty(world.folder)
    check_empty(tmp_path / "not there")
    (tmp_path / "x").mkdir()
    check_empty(tmp_path / "x")
