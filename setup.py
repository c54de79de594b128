"""Installs adapter-bert: `pip install -e .`, or `pip install -e .[hf]`.

The lists below are plain values, so that setup_test.py can compare them with
the files beside this one and with what these import.
"""

# What a script imports by these names; all else is in the package adapter_bert.
MODULES = ["modeling", "optimization", "run_classifier", "tokenization"]

REQUIREMENTS = [
    # Graphs, sessions, checkpoints, tf.distribute. 2.16 is the first release
    # without tf.estimator, 2.21 the newest that was tried.
    "tensorflow>=2.16,<2.22",
    # Batches, metrics, random permutations. TensorFlow says which versions.
    "numpy",
    # Part of the interface that older scripts know: they pass six's text types.
    "six",
    # Flags, logging and app.run of every program.
    "absl-py",
]

# The commands that are installed, one for each program.
CONSOLE_SCRIPTS = [
    "adapter-bert = run_classifier:entry_point",
    "adapter-bert-convert = adapter_bert.checkpoints.convert:entry_point",
    "adapter-bert-count = adapter_bert.experiments.count_parameters:entry_point",
    "adapter-bert-exchange = adapter_bert.serving.exchange:entry_point",
    "adapter-bert-export = adapter_bert.serving.export:entry_point",
    "adapter-bert-export-generator = adapter_bert.serving.export_generator:entry_point",
    "adapter-bert-figures = adapter_bert.experiments.figures:entry_point",
    "adapter-bert-generate = adapter_bert.generation.generate:entry_point",
    "adapter-bert-local = adapter_bert.distributed.launch_local:entry_point",
    "adapter-bert-predict = adapter_bert.serving.predict_tasks:entry_point",
    "adapter-bert-seq2seq = adapter_bert.run_seq2seq:entry_point",
    "adapter-bert-sweep = adapter_bert.experiments.sweep:entry_point",
]

EXTRAS = {
    # Reads Hugging Face's weights. Up to 0.4.4 its numpy reader does not know
    # bfloat16.
    "hf": ["safetensors>=0.4.5"],
    # Read the tokenizers of sequence models: tokenizer.json and the like, and
    # T5's spiece.model.
    "text": ["tokenizers>=0.15", "sentencepiece>=0.2"],
    # BLEU and chrF, and ROUGE, of generated text.
    "metrics": ["sacrebleu>=2.0", "rouge-score>=0.1.2"],
    # Draws the figures that some programs offer.
    "plot": ["matplotlib"],
    # Runs the tests; xdist, two files at a time: half the wait for test.sh.
    "test": ["pytest", "pytest-xdist"],
}


def is_test(module):
  """Whether a module of the package is only there for the tests."""
  return module.endswith("_test") or module == "test_util"


def main():
  # Not at the top: a virtual environment of Python 3.12 need not have it.
  import setuptools  # pylint: disable=import-outside-toplevel
  from setuptools.command import build_py  # pylint: disable=import-outside-toplevel

  class BuildWithoutTests(build_py.build_py):
    """Leaves the tests, which stand beside what they test, out of a wheel."""

    def find_package_modules(self, package, package_dir):
      found = super().find_package_modules(package, package_dir)
      return [entry for entry in found if not is_test(entry[1])]

  setuptools.setup(
      name="adapter-bert",
      version="0.2.0",
      description="Adapter-BERT (Houlsby et al. 2019) on today's TensorFlow: "
                  "GLUE fine-tuning that trains a few percent of BERT",
      license="Apache-2.0",
      license_files=["LICENSE", "NOTICE"],
      python_requires=">=3.10",
      py_modules=MODULES,
      packages=setuptools.find_packages(include=["adapter_bert*"]),
      cmdclass={"build_py": BuildWithoutTests},
      install_requires=REQUIREMENTS,
      extras_require=EXTRAS,
      entry_points={"console_scripts": CONSOLE_SCRIPTS},
  )


# pip runs this file under the name __main__, the test imports it.
if __name__ == "__main__":
  main()
