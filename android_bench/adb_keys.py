"""The key by which a phone knows this computer; made once, kept in the user's own folder, readable by no one else."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

from android_bench.errors import DeviceMissing
from android_bench.home import home
from android_bench.output import atomic


def config_folder() -> Path:
    """The user's folder for settings of this package: ``EDGECLS_CONFIG``, or below the system's usual place."""
    if own := os.environ.get("EDGECLS_CONFIG"):
        return Path(own)
    base = os.environ.get("XDG_CONFIG_HOME") or os.environ.get("APPDATA")
    return (Path(base) if base else home() / ".config") / "edgecls"


def signer(folder: Path | None = None) -> Any:
    """The signer for adb-shell; makes the key pair (RSA, 2048 bits: all that phones accept) when there is none.

    Raises:
        DeviceMissing: The key cannot be read or written.
    """
    from adb_shell.auth.sign_cryptography import CryptographySigner

    path = (folder or config_folder()) / "adbkey"
    try:
        if not path.is_file() or not path.with_suffix(".pub").is_file():
            _make(path)
        path.chmod(0o600)
        return CryptographySigner(str(path))
    except (OSError, ValueError) as error:
        raise DeviceMissing(
            f"cannot use the key for phones: {error}", where=str(path), fix="delete it; a new one is made"
        ) from None


def _make(path: Path) -> None:
    from adb_shell.auth.keygen import encode_pubkey
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    pem = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with atomic(path, mode=0o600) as temporary:
        temporary.write_bytes(pem)
    with atomic(path.with_suffix(".pub")) as temporary:
        # The phone shows the text after the key in its prompt and its list of computers.
        temporary.write_bytes(base64.b64encode(encode_pubkey(str(path))) + b" edgecls")
