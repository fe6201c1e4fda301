"""Packaging of recbole_dtn; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "recbole_dtn" / "version.py").read_text(encoding="utf-8"))[1]
# ray, a hard requirement of recbole 1.2.1, has no wheels past Python 3.11; numpy 2 and pandas 3 break recbole 1.2.1.
REQUIRES = [
    "recbole==1.2.1",
    "torch>=2.4",
    "pytorch-lightning>=2.6,<2.7",
    "torchmetrics>=1.5,<2",
    "polars>=2.1,<3",
    "numpy>=1.26.4,<2",
    "pandas>=1.5,<3",
    "scipy>=1.11",
    "scikit-learn>=1.7,<2",  # 1.7: boosting stops on validation rows that it is given
    "setuptools<81",  # ray, which recbole.quick_start imports, needs its pkg_resources
    "pyyaml>=6",
    "pydantic>=2.7,<3",
    "rich>=13",
    "psutil>=5.9",
    "filelock>=3.12",
    "zstandard>=0.22",
    "jinja2>=3.1",
    "matplotlib>=3.8",
    "optuna>=4",
]
ONNX = ["onnx>=1.17", "onnxscript>=0.5", "onnxruntime>=1.20"]
SERVING = ["onnxruntime>=1.20", "fastapi>=0.115", "httpx>=0.27", "uvicorn>=0.30"]  # examples/serving, and its tests
SLURM = ["submitit>=1.5"]
TEST = [
    "pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6.100", "setuptools>=68", "wheel",
    *ONNX, *SLURM, "fastapi>=0.115", "httpx>=0.27",
]  # fmt: skip
DEV = [*TEST, "ruff==0.17.*", "mypy==2.4.*", "import-linter==2.*", "types-PyYAML", "types-psutil"]

setup(
    name="recbole-dtn",
    version=VERSION,
    description="Multi-task CTR / CVR recommendation for RecBole, under Lightning: DTN, MMoE, PLE and their comparison",
    long_description=(HERE / "README.md").read_text(encoding="utf-8") if (HERE / "README.md").is_file() else "",
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11,<3.12",
    packages=[*find_packages(include=["recbole_dtn", "recbole_dtn.*"]), "recbole_dtn.properties"],
    package_dir={"recbole_dtn.properties": "properties"},
    package_data={
        "recbole_dtn.properties": ["index.json", "details.json", "*.yaml", "*/*.yaml"],
        "recbole_dtn": ["py.typed"],
        "recbole_dtn.inspect.info": ["*.j2"],
        "recbole_dtn.leaderboard.page": ["*.j2", "*.css", "*.js"],
        "recbole_dtn.report": ["*.j2"],
        "recbole_dtn.cli": ["skeletons/*.txt"],
    },
    install_requires=REQUIRES,
    extras_require={
        "test": TEST,
        "dev": DEV,
        "tensorboard": ["tensorboard"],
        "wandb": ["wandb"],
        "fbgemm": ["fbgemm-gpu"],
        "catboost": ["catboost>=1.2"],
        "lightgbm": ["lightgbm>=4"],
        "slurm": SLURM,
        "onnx": ONNX,
        "serving": SERVING,
    },
    entry_points={"console_scripts": ["recbole-dtn=recbole_dtn.cli:main"]},
)
