"""Installs adapter-bert: `pip install -e .`, or `pip install -e .[convert]`.

The lists below are plain values, so that setup_test.py can compare them with
the files beside this one and with what these import.
"""

# Every top-level module that is not a test.
MODULES = [
    "checkpoints",
    "cluster",
    "convert_hf_checkpoint",
    "count_parameters",
    "distribution",
    "errors",
    "figures",
    "glue",
    "input_pipeline",
    "launch_local",
    "metrics",
    "modeling",
    "optimization",
    "predict_tasks",
    "run_classifier",
    "sweep",
    "tokenization",
    "training",
]

REQUIREMENTS = [
    # Graphs, sessions, checkpoints, tf.distribute. 2.16 is the first release
    # without tf.estimator, 2.21 the newest that was tried.
    "tensorflow>=2.16,<2.22",
    # Batches, metrics, random permutations. TensorFlow says which versions.
    "numpy",
    # Part of the interface that older scripts know: they pass six's text types.
    "six",
    # Flags, logging and app.run of every executable.
    "absl-py",
]

# The commands that are installed.
CONSOLE_SCRIPTS = [
    "adapter-bert = run_classifier:entry_point",
    "adapter-bert-local = launch_local:entry_point",
    "adapter-bert-figures = figures:entry_point",
    "adapter-bert-predict = predict_tasks:entry_point",
    "adapter-bert-sweep = sweep:entry_point",
]

EXTRAS = {
    # Reads Hugging Face weights, for convert_hf_checkpoint.py only. Up to 0.4.4
    # its numpy reader does not know bfloat16.
    "convert": ["safetensors>=0.4.5"],
    # Draws the figures that some programs offer (count_parameters.py --plot).
    "plot": ["matplotlib"],
    # Runs the tests; xdist, two files at a time: half the wait for test.sh.
    "test": ["pytest", "pytest-xdist"],
}


def main():
  # Not at the top: a virtual environment of Python 3.12 need not have it.
  import setuptools  # pylint: disable=import-outside-toplevel

  setuptools.setup(
      name="adapter-bert",
      version="0.1.0",
      description="Adapter-BERT (Houlsby et al. 2019) on today's TensorFlow: "
                  "GLUE fine-tuning that trains a few percent of BERT",
      license="Apache-2.0",
      license_files=["LICENSE", "NOTICE"],
      python_requires=">=3.10",
      py_modules=MODULES,
      install_requires=REQUIREMENTS,
      extras_require=EXTRAS,
      entry_points={"console_scripts": CONSOLE_SCRIPTS},
  )


# pip runs this file under the name __main__, the test imports it.
if __name__ == "__main__":
  main()
