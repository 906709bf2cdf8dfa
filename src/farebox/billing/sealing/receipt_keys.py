"""The file of signing keys: one that signs, and the public ones of all that did.

It lies beside the configuration, readable by its owner alone, and is made at first use. A rotation makes a new key and forgets
the private half of the old one, whose public half stays, so that old receipts can be checked for ever.
"""

import os
from pathlib import Path

import msgspec

from farebox.billing.books.periods import format_moment
from farebox.billing.sealing.signatures import KEY_BYTES, KEYS_MAX, Signer, decode, encode, key_set

FILE_BYTES_MAX = 1024 * 1024


class KeyFileError(Exception):
    """The file cannot be used; a sentence with what to do."""


class _Key(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    created: str
    public: str
    private: str = ""
    """Only the newest has it."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: tuple[_Key, ...]
    """The newest first."""


class Keys(msgspec.Struct, frozen=True):
    """What the file says."""

    signer: Signer
    public: tuple[bytes, ...]
    """The newest first; all that ever signed."""

    @property
    def document(self) -> bytes:
        """What `/.well-known/farebox-keys.json` answers."""
        return msgspec.json.encode(key_set(self.public))


def read(path: Path) -> Keys | None:
    """The keys; None where there is no file yet. Raises `KeyFileError`."""
    found = _read(path)
    if found is None:
        return None
    try:
        public = tuple(decode(one.public, KEY_BYTES) for one in found.keys)
        signer = Signer(decode(found.keys[0].private, KEY_BYTES))
    except (ValueError, IndexError):
        raise KeyFileError(f"{path}: a key in it is damaged; restore the file from a backup") from None
    if signer.public != public[0]:
        raise KeyFileError(f"{path}: its first key has another's private half; restore the file from a backup")
    return Keys(signer, public)


def _read(path: Path) -> _File | None:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise KeyFileError(f"{path}: others may read it; `chmod 600 {path}`")
            return msgspec.json.decode(file.read(FILE_BYTES_MAX), type=_File)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise KeyFileError(f"{path}: {error}; restore the file from a backup") from None
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None


def read_or_make(path: Path, now_us: int) -> Keys:
    """The keys; a first one where there is none. Of two that make it at once, both get the same. Raises `KeyFileError`."""
    found = read(path)
    if found is not None:
        return found
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        _write(fresh, _File((_made(now_us),)))
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(fresh)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
    found = read(path)
    assert found is not None, "somebody has made it"
    return found


def rotate(path: Path, now_us: int) -> Keys:
    """Sign with a new key from now on. Raises `KeyFileError`."""
    read_or_make(path, now_us)
    fresh = path.with_name(f"{path.name}.new")
    try:
        # Exclusive: of two rotations at once, one fails, and no key is lost.
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise KeyFileError(f"{fresh}: another rotation is under way; remove the file if there is none") from None
    os.close(fd)
    found = _read(path)
    assert found is not None, "it was read above"
    if len(found.keys) >= KEYS_MAX:
        os.unlink(fresh)
        raise KeyFileError(f"{path}: has {KEYS_MAX} keys, the most there can be")
    _write(fresh, _File((_made(now_us), *(msgspec.structs.replace(one, private="") for one in found.keys))))
    os.replace(fresh, path)
    rotated = read(path)
    assert rotated is not None, "it was written above"
    return rotated


def _made(now_us: int) -> _Key:
    private = os.urandom(KEY_BYTES)
    return _Key(format_moment(now_us), encode(Signer(private).public), encode(private))


def _write(path: Path, content: _File) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
        file.flush()
        os.fsync(file.fileno())
