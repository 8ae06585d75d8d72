"""The vault port's clause for every driver, the key file, and broken vaults that the checks find out."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from clauses import Clause, Suite, written_clauses
from hypothesis import given
from hypothesis import strategies as st

import septet.ports.blobs
from septet.drivers.vault.aesgcm import AesGcmVault, key_id, load_key
from septet.model.errors import Corrupt, SeptetError, Unavailable
from septet.ports.blobs import Vault

KEY = bytes(range(32))
CONTEXT = "default/db/password"
suite: Suite[Vault] = Suite()


def opens(vault: Vault, sealed: str, context: str = CONTEXT) -> bool:
    """False when it is refused as altered."""
    try:
        vault.open(sealed, context)
    except Corrupt:
        return False
    return True


@suite.clause("vault.1")
async def what_was_sealed_opens(vault: Vault) -> None:
    for plain in (b"", b"x", bytes(range(256)) * 300):
        sealed = vault.seal(plain, CONTEXT)
        assert vault.open(sealed, CONTEXT) == plain
        assert len(plain) < 2 or base64.b64encode(plain).decode() not in sealed


@suite.clause("vault.1")
async def sealed_values_differ_each_time(vault: Vault) -> None:
    assert len({vault.seal(b"same", CONTEXT) for _ in range(100)}) == 100


@suite.clause("vault.1")
async def no_bit_may_change(vault: Vault) -> None:
    for plain in (b"", b"s", b"se", b"sec"):
        sealed = vault.seal(plain, CONTEXT)
        for at, letter in enumerate(sealed):
            for bit in range(7):
                other = sealed[:at] + chr(ord(letter) ^ 1 << bit) + sealed[at + 1 :]
                assert not opens(vault, other), (sealed, other)
        assert not opens(vault, sealed[:-4]) and not opens(vault, sealed + "AAAA") and not opens(vault, "")


@suite.clause("vault.1")
async def a_value_opens_in_its_place_only(vault: Vault) -> None:
    sealed = vault.seal(b"secret", CONTEXT)
    for context in ("default/db/user", "other/db/password", "", CONTEXT + " "):
        assert not opens(vault, sealed, context)


@pytest.mark.parametrize("clause", suite.clauses, ids=lambda clause: clause.name)
async def test_clause(clause: Clause) -> None:
    await clause.check(AesGcmVault(KEY))


def test_every_clause_of_the_port_has_a_test() -> None:
    assert written_clauses(septet.ports.blobs, "vault") == suite.ids()


class Forgets(AesGcmVault):
    def open(self, sealed: str, context: str) -> bytes:
        return super().open(sealed, context)[:5]


class Repeats(AesGcmVault):
    def seal(self, plain: bytes, context: str) -> str:
        made: dict[bytes, str] = self.__dict__.setdefault("made", {})
        return made.setdefault(plain, super().seal(plain, context))


class Tolerates(AesGcmVault):
    """Bits of base64 that say nothing may be anything."""

    def open(self, sealed: str, context: str) -> bytes:
        head, _, text = sealed.rpartition(".")
        try:
            text = base64.b64encode(base64.b64decode(text, validate=True)).decode()
        except ValueError:
            raise Corrupt("not base64") from None
        return super().open(f"{head}.{text}", context)


class KnowsNoPlace(AesGcmVault):
    def seal(self, plain: bytes, context: str) -> str:
        return super().seal(plain, "")

    def open(self, sealed: str, context: str) -> bytes:
        return super().open(sealed, "")


BROKEN: dict[str, type[AesGcmVault]] = {
    "what_was_sealed_opens": Forgets,
    "sealed_values_differ_each_time": Repeats,
    "no_bit_may_change": Tolerates,
    "a_value_opens_in_its_place_only": KnowsNoPlace,
}


@pytest.mark.parametrize("clause", suite.clauses, ids=lambda clause: clause.name)
async def test_a_broken_vault_fails(clause: Clause) -> None:
    with pytest.raises((AssertionError, SeptetError)):
        await clause.check(BROKEN[clause.check.__name__](KEY))


@given(plain=st.binary(max_size=300), context=st.text(max_size=50))
def test_any_value_in_any_place(plain: bytes, context: str) -> None:
    vault = AesGcmVault(KEY)
    assert vault.open(vault.seal(plain, context), context) == plain


def test_an_older_key_still_opens() -> None:
    old, new = AesGcmVault(KEY), AesGcmVault(KEY[::-1], older=(KEY,))
    assert new.open(old.seal(b"x", CONTEXT), CONTEXT) == b"x"
    assert key_id(KEY[::-1]) in new.seal(b"x", CONTEXT)
    with pytest.raises(Corrupt, match="key that is not here"):
        AesGcmVault(KEY[::-1]).open(old.seal(b"x", CONTEXT), CONTEXT)


def test_the_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "vault.key"
    key = load_key(path)
    assert len(key) == 32 and load_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["vault.key"]
    assert load_key(tmp_path / "another.key") != key


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o601])
def test_a_key_that_others_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "vault.key"
    load_key(path)
    path.chmod(mode)
    with pytest.raises(Unavailable, match="open to others"):
        load_key(path)
    path.chmod(0o600)
    load_key(path)


def test_a_key_that_is_none_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "vault.key"
    for content in (b"", KEY[:-1], KEY + b"\n"):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(Unavailable, match="bytes, not 32"):
            load_key(path)
        assert path.read_bytes() == content
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unavailable):
        load_key(path)
    with pytest.raises(Unavailable):
        load_key(tmp_path / "no folder" / "vault.key")


@pytest.mark.root
def test_a_key_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vault.key"
    load_key(path)
    os.chown(path, 65534, 65534)
    with pytest.raises(Unavailable, match="open to others"):
        load_key(path)
