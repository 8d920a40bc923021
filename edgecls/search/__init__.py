"""Searching: further training images (``mine``), the best settings (``space``, ``study``; the latter needs Optuna, an extra)."""

from __future__ import annotations

from edgecls.errors import MissingError


def require_optuna() -> None:
    """Raise MissingError, with the line to type, if Optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        fix = "pip install '.[tune]' in the checkout"
        raise MissingError("package 'optuna' is not installed", fix=fix) from None
