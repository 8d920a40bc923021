"""TensorFlow is told to use oneDNN before it is imported, unless the user has decided."""

import os
import platform
import subprocess
import sys

import pytest

from edgecls.onednn import VARIABLE

# What TensorFlow itself says of it.
PROGRAM = """
import edgecls
import tensorflow as tf
from tensorflow.python.util import _pywrap_util_port
print(_pywrap_util_port.IsMklEnabled())
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="oneDNN is for x86")
@pytest.mark.parametrize(("value", "used"), [(None, "True"), ("1", "True"), ("0", "False")])
def test_onednn_is_used_unless_the_user_says_no(value: str | None, used: str) -> None:
    environment = {key: text for key, text in os.environ.items() if key != VARIABLE}
    if value is not None:
        environment[VARIABLE] = value
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == used
