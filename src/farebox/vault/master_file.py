"""The file of master keys, `byok-master.json`: beside the configuration, readable by its owner alone, made at first use.

It lists keys, the newest first; which of them seals is said by the database (`provider_key_master`), so that machines that share
one agree. Machines that share a database have the same file; whoever makes it copies it to the others.
"""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from farebox.vault.envelope import KEY_BYTES, Master

KEYS_MAX = 16
"""A rotation that has ended leaves one."""
FILE_BYTES_MAX = 64 * 1024


class MasterFileError(Exception):
    """The file cannot be used; a sentence with what to do."""


class _Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    made_us: int
    secret: bytes

    def __repr__(self) -> str:
        return "_Key(…)"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: tuple[_Key, ...]
    """The newest first."""


def read(path: Path) -> tuple[Master, ...]:
    """The keys, the newest first; none where there is no file. Raises `MasterFileError`."""
    found = _read(path)
    return () if found is None else tuple(Master(one.secret) for one in found.keys)


def _read(path: Path) -> _File | None:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise MasterFileError(f"{path}: others may read it; `chmod 600 {path}`")
            found = msgspec.json.decode(file.read(FILE_BYTES_MAX), type=_File)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError:
        # Without the decoder's words: they may repeat what is in the file.
        raise MasterFileError(f"{path}: damaged; restore the file from a backup") from None
    except OSError as error:
        raise MasterFileError(f"{path}: {error.strerror}") from None
    if not found.keys or any(len(one.secret) != KEY_BYTES for one in found.keys):
        raise MasterFileError(f"{path}: a key in it is damaged; restore the file from a backup")
    return found


def read_or_make(path: Path, now_us: int) -> tuple[Master, ...]:
    """The keys; a first one where there is none. Of two that make it at once, both get the same. Raises `MasterFileError`."""
    found = read(path)
    if found:
        return found
    fresh = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}.new")
    try:
        _write(fresh, _File((_made(now_us),)))
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(fresh)
    except OSError as error:
        raise MasterFileError(f"{path}: {error.strerror}") from None
    return read(path)


def add(path: Path, now_us: int) -> Master:
    """Put a new key before the others. Raises `MasterFileError`."""
    read_or_make(path, now_us)
    made = _made(now_us)

    def with_it(found: _File) -> _File:
        if len(found.keys) >= KEYS_MAX:
            raise MasterFileError(
                f"{path}: has {KEYS_MAX} keys, the most there can be; `farebox byok rotate-master` drops those not used any more"
            )
        return _File((made, *found.keys))

    _change(path, with_it)
    return Master(made.secret)


def keep(path: Path, ids: frozenset[str]) -> int:
    """Forget every key but these; how many are gone. Raises `MasterFileError`."""
    before = len(read(path))

    def without(found: _File) -> _File:
        kept = tuple(one for one in found.keys if Master(one.secret).id in ids)
        return _File(kept) if kept else found

    _change(path, without)
    return before - len(read(path))


def _change(path: Path, change: Callable[[_File], _File]) -> None:
    fresh = path.with_name(f"{path.name}.new")
    try:
        # Exclusive: of two changes at once, one fails, and no key is lost.
        os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        raise MasterFileError(f"{fresh}: another rotation is under way; remove the file if there is none") from None
    except OSError as error:
        raise MasterFileError(f"{fresh}: {error.strerror}") from None
    try:
        found = _read(path)
        if found is None:
            raise MasterFileError(f"{path}: has gone; restore the file from a backup")
        _write(fresh, change(found))
        os.replace(fresh, path)
    except MasterFileError:
        os.unlink(fresh)
        raise
    except OSError as error:
        os.unlink(fresh)
        raise MasterFileError(f"{path}: {error.strerror}") from None


def _made(now_us: int) -> _Key:
    return _Key(now_us, os.urandom(KEY_BYTES))


def _write(path: Path, content: _File) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
        file.flush()
        os.fsync(file.fileno())
