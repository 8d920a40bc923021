"""The key by which a phone knows this computer; made once, kept in the user's own folder, readable by no one else."""

from __future__ import annotations

import base64
import os
import tempfile
from pathlib import Path
from typing import Any

from android_bench.errors import DeviceMissing
from android_bench.folders import config_folder
from android_bench.output.documents import atomic


def signer(folder: Path | None = None) -> Any:
    """The signer for adb-shell.

    A key pair (RSA, 2048 bits: all that phones accept) is made when there is no private key. A public key that is
    missing is rebuilt from the private one, because phones that trust the pair must go on to trust it.

    Args:
        folder: Where ``adbkey`` and ``adbkey.pub`` are; None: the user's settings.

    Raises:
        DeviceMissing: The key cannot be read or written.
    """
    from adb_shell.auth.sign_cryptography import CryptographySigner

    private = (folder or config_folder()) / "adbkey"
    public = private.with_suffix(".pub")
    try:
        lost = not private.exists()
        if lost:
            _make_private(private)
        if lost or not public.is_file():  # a public key without its private one is of no use
            _write_public(private, public)
        if private.stat().st_mode & 0o077:
            private.chmod(0o600)
        return CryptographySigner(str(private))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        # cryptography raises the last three: not PEM, locked with a password, not RSA.
        raise DeviceMissing(
            f"cannot use the key for phones: {str(error) or type(error).__name__}",
            where=str(private),
            fix="if it is damaged, move it away: a new one is made, which every phone must accept anew",
        ) from None


def _make_private(path: Path) -> None:
    """Makes a private key; one that another process has put there meanwhile stays."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    pem = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    handle, name = tempfile.mkstemp(prefix=".adbkey.", dir=path.parent)  # readable by its owner alone
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
        _put(Path(name), path)
    finally:
        Path(name).unlink(missing_ok=True)


def _put(temporary: Path, path: Path) -> None:
    """Gives a file its name, unless there is a file of that name. A rename would take its place."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    except OSError:  # a file system without links
        if not path.exists():
            temporary.rename(path)


def _write_public(private: Path, public: Path) -> None:
    from adb_shell.auth.keygen import encode_pubkey

    encoded = base64.b64encode(encode_pubkey(str(private)))
    with atomic(public) as temporary:
        # The phone shows the text after the key in its prompt and its list of computers.
        temporary.write_bytes(encoded + b" edgecls")
