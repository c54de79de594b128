"""The program: its answers on the golden model, and what it refuses."""

import io
import json
import os
import sys

import numpy as np
import pytest

from adapter_bert import test_util
from adapter_bert.base import errors
from adapter_bert.checkpoints import model_dir
from adapter_bert.checkpoints import record as run_record
from adapter_bert.checkpoints import sequence_weights
from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.data import text_tokenizers
from adapter_bert.generation import defaults
from adapter_bert.generation import generate
from adapter_bert.generation import generator
from adapter_bert.models import gpt2
from adapter_bert.training import sequence_specs


@pytest.fixture(name="golden", scope="module")
def fixture_golden():
  return test_util.sequence_golden("gpt2")


def prompts_of(golden):
  """The golden prompts without their padding, as lists of int."""
  arrays = golden.arrays
  return [ids[mask == 1].tolist() for ids, mask in zip(
      arrays["generate/input_ids"], arrays["generate/attention_mask"])]


def answers_of(golden, key, has_encoder=False):
  """The golden answers: ids up to the first end, without the prompts."""
  end = golden.facts["generate"]["eos_token_id"]
  width = 1 if has_encoder else golden.arrays["generate/input_ids"].shape[1]
  rows = golden.arrays[key][:, width:].tolist()
  return [row[:row.index(end) + 1] if end in row else row for row in rows]


def write_task(golden, directory, kind="prefix", **changes):
  """A task checkpoint as a run leaves it: the golden prefix, or adapters."""
  config = gpt2.GPT2Config.from_json_file(
      os.path.join(golden.checkpoint, "config.json"))
  source = model_dir.open_model_dir(golden.checkpoint)
  base = sequence_weights.open_weights(source, config)
  spec = sequence_specs.SequenceSpec(
      config=config, tune="prefix" if kind == "prefix" else "adapters",
      prefix_length=golden.facts["prefix_length"], prefix_hidden_size=7,
      prefix_positions="unshifted", adapter_size=3)
  if kind == "prefix":
    prefix = golden.arrays["prefix/var/self_prefix"]
    arrays = {"gpt2/prefix/embeddings": prefix.reshape([len(prefix), -1])}
  else:
    rng = np.random.RandomState(0)
    arrays = {name: array for name, array in base.items() if "LayerNorm" in name}
    for layer in range(config.n_layer):
      for half in ("attention/output", "output"):
        name = "gpt2/decoder/layer_%d/%s/adapters/" % (layer, half)
        for part, shape in (("weights1", [config.n_embd, 3]), ("biases1", [1, 3]),
                            ("weights2", [3, config.n_embd]),
                            ("biases2", [1, config.n_embd])):
          arrays[name + part] = rng.normal(size=shape).astype(np.float32)
  record = dict(spec.describe(), base={
      "path": golden.checkpoint, "sha256": sequence_weights.digest(base)})
  path = os.path.join(str(directory), kind, "task")
  run_record.write(path, dict(record, **changes))
  weights_lib.write(os.path.join(path, "model.ckpt"),
                    dict(arrays, global_step=np.int64(3)))
  return path


def run(tmp_path, lines, **options):
  """The program's answers to some lines, as JSON values."""
  source, target = str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")
  with open(source, "w", encoding="utf-8") as writer:
    writer.writelines(line + "\n" for line in lines)
  generate.run(generate.Options(**dict(dict(
      input=source, output=target, batch_size=2), **options)))
  with open(target, encoding="utf-8") as reader:
    return [json.loads(line) for line in reader]


def as_lines(prompts):
  return [json.dumps({"input_ids": prompt}) for prompt in prompts]


def test_golden_answers_of_the_base(golden, tmp_path):
  found = run(tmp_path, as_lines(prompts_of(golden)), num_beams=3,
              model_dir=golden.checkpoint, max_new_tokens=12)
  assert [row["output_ids"] for row in found] == answers_of(
      golden, "generate/beam3_penalty1")
  np.testing.assert_allclose(
      [row["score"] for row in found],
      golden.arrays["generate/beam3_penalty1_scores"], rtol=1e-4)


def test_golden_answers_of_task_checkpoints(golden, tmp_path):
  """Several over one model: each is what it is alone, in the input's order."""
  paths = [write_task(golden, tmp_path, kind) for kind in ("prefix", "adapters")]
  lines = as_lines(prompts_of(golden))
  both = run(tmp_path, lines, task_checkpoints=paths, max_new_tokens=12,
             model_dir=golden.checkpoint)
  assert [row["tasks"]["prefix"]["output_ids"] for row in both] == answers_of(
      golden, "prefix/generate/greedy")
  alone = run(tmp_path, lines, task_checkpoints=paths[1:], max_new_tokens=12,
              model_dir=golden.checkpoint)
  assert [row["tasks"]["adapters"] for row in both] == alone
  assert [row["output_ids"] for row in alone] != answers_of(golden,
                                                            "generate/greedy")


@pytest.mark.parametrize("family", ["bart", "t5_v1_1"])
def test_golden_answers_of_encoder_decoders(family, tmp_path):
  golden = test_util.sequence_golden(family)
  found = run(tmp_path, as_lines(prompts_of(golden)), num_beams=3,
              model_dir=golden.checkpoint, forced_eos_token_id=-1,
              max_new_tokens=12)
  assert [row["output_ids"] for row in found] == answers_of(
      golden, "generate/beam3_penalty1", has_encoder=True)


@pytest.fixture(name="loaded", scope="module")
def fixture_loaded(golden):
  """A Generator that samples two answers for each prompt."""
  options = generate.Options(model_dir=golden.checkpoint, do_sample=True,
                             num_return_sequences=2, max_new_tokens=4)
  return generate.set_up(options)[0]


class Typed(io.BytesIO):
  """Stdin, a line at a time; remembers what was answered before each line."""

  def __init__(self, lines, output):
    super().__init__()
    self._lines, self._output, self.answered = list(lines), output, []

  def read1(self, size=-1):
    self.answered.append(self._output.getvalue().count(b"\n"))
    return self._lines.pop(0) if self._lines else b""


def test_stdin_is_answered_as_it_comes(golden, loaded, monkeypatch):
  output = io.BytesIO()
  typed = Typed([b"{\"input_ids\": [1, 2]}\n", b"{\"input_ids\": [3]}\n"], output)
  monkeypatch.setattr(sys, "stdin", type("", (), {"buffer": typed}))
  monkeypatch.setattr(sys, "stdout", type("", (), {"buffer": output}))
  monkeypatch.setattr(generate, "set_up", lambda options: (loaded, None))
  generate.run(generate.Options(model_dir=golden.checkpoint))
  assert typed.answered == [0, 1, 2]


def test_a_seed_repeats_and_a_line_does_not_depend_on_its_batch(golden, loaded):
  def answers(seed, batch_size, lines):
    options = generate.Options(model_dir=golden.checkpoint, seed=seed,
                               batch_size=batch_size)
    answerer = generate.Answerer(loaded, None, options, "file")
    found, failure = answerer.answer(lines)
    assert failure is None
    return [json.loads(line)["results"] for line in found.splitlines()]

  lines = list(enumerate((line.encode() for line in
                          as_lines([[1, 2, 3], [4], [1, 2, 3], [5, 6]])), 1))
  first = answers(1, 4, lines)
  ids = lambda results: [result["output_ids"] for result in results]
  assert answers(1, 4, lines) == first
  for one, line in zip(first, lines):
    assert ids(answers(1, 1, [line])[0]) == ids(one)
  assert [ids(r) for r in answers(2, 4, lines)] != [ids(r) for r in first]
  assert first[0] != first[2]  # Another line draws other numbers.


class Words(object):
  """A tokenizer of numbers."""

  def encode(self, text):
    return [int(word) for word in text.split()]

  def decode(self, ids):
    return " ".join(map(str, ids))


def test_text_goes_through_the_tokenizer(golden, loaded):
  options = generate.Options(model_dir=golden.checkpoint)
  answerer = generate.Answerer(loaded, Words(), options, "file")
  found, _ = answerer.answer([(1, b"{\"text\": \"4 5\"}"),
                              (2, b"{\"input_ids\": [4, 5]}")])
  for line in found.splitlines():
    for result in json.loads(line)["results"]:
      assert result["text"] == " ".join(map(str, result["output_ids"]))


@pytest.mark.parametrize("line,message", [
    (b"4 5", "is not JSON"),
    (b"[4, 5]", "must be a JSON object with the prompt as \"text\" or"),
    (b"{\"txt\": \"4\"}", "must be a JSON object with"),
    (b"{\"text\": \"4\", \"input_ids\": [4]}", "must be a JSON object with"),
    (b"{\"text\": 4}", "\"text\" is not a string"),
    (b"{\"text\": \"  \"}", "the prompt is empty"),
    (b"{\"input_ids\": []}", "the prompt is empty"),
    (b"{\"input_ids\": [4, 97]}", "whole numbers from 0 to 96"),
    (b"{\"input_ids\": [true]}", "whole numbers from 0 to 96"),
    (b"{\"input_ids\": \"4\"}", "whole numbers from 0 to 96"),
    (b"{\"text\": \"\xff\"}", "is not UTF-8"),
])
def test_lines_that_are_no_prompt(golden, loaded, line, message):
  if os.environ.get("ADAPTER_BERT_SEQUENCE_GOLDEN"):
    pytest.skip("the vocabulary is of the model in testdata")
  answerer = generate.Answerer(
      loaded, Words(), generate.Options(model_dir=golden.checkpoint), "file")
  found, failure = answerer.answer([(1, b"{\"input_ids\": [4]}"), (2, line),
                                    (3, b"{\"input_ids\": [4]}")])
  assert len(found.splitlines()) == 1  # What came before is answered.
  with pytest.raises(errors.InputError, match="^file:2: .*" + message):
    raise failure


def test_text_without_a_tokenizer(golden, loaded):
  answerer = generate.Answerer(
      loaded, None, generate.Options(model_dir=golden.checkpoint), "file")
  _, failure = answerer.answer([(1, b"{\"text\": \"4\"}")])
  assert "file:1: has \"text\", but the model's directory has no tok" in str(
      failure)


def test_a_tokenizer_with_more_tokens_than_the_model(tmp_path):
  pytest.importorskip("tokenizers")
  (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "b": 1, "ab": 2}))
  (tmp_path / "merges.txt").write_text("a b\n")
  (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
  (tmp_path / "model.safetensors").write_bytes(b"")
  directory = model_dir.open_model_dir(str(tmp_path))
  fits = gpt2.GPT2Config.from_dict(dict(vocab_size=3, n_embd=4, n_head=2))
  options = generate.Options(model_dir=str(tmp_path))
  tokenizer = generate.open_tokenizer(options, directory, fits, [])
  assert tokenizer.decode(tokenizer.encode("ab")) == "ab"
  small = gpt2.GPT2Config.from_dict(dict(vocab_size=2, n_embd=4, n_head=2))
  with pytest.raises(errors.InputError, match="has 3 entries and the model 2"):
    generate.open_tokenizer(options, directory, small, [])


def write_words(path, prefix):
  """A tokenizer.json of words: "x7" is 7, if the prefix is x."""
  path.write_text(json.dumps({
      "version": "1.0", "truncation": None, "padding": None, "decoder": None,
      "normalizer": None, "added_tokens": [], "post_processor": None,
      "pre_tokenizer": {"type": "WhitespaceSplit"},
      "model": {"type": "WordLevel", "unk_token": prefix + "0",
                "vocab": {prefix + str(i): i for i in range(97)}}}))
  return str(path)


def test_the_tokenizers_of_flags_and_of_a_run(golden, tmp_path):
  """One reads prompts, the other writes what is generated."""
  pytest.importorskip("tokenizers")
  source, target = [write_words(tmp_path / (name + ".json"), name)
                    for name in "st"]
  both = dict(source_tokenizer=source, target_tokenizer=target)
  prompts = prompts_of(golden)[:2]
  lines = [json.dumps({"text": " ".join("s%d" % i for i in prompt)})
           for prompt in prompts]
  common = dict(model_dir=golden.checkpoint, max_new_tokens=12)
  answers = lambda key: [
      (ids, " ".join("t%d" % i for i in ids))
      for ids in answers_of(golden, key)[:2]]
  found = run(tmp_path, lines, **dict(common, **both))
  assert [(row["output_ids"], row["text"]) for row in found] == answers(
      "generate/greedy")
  used = [text_tokenizers.open_tokenizer(path).describe()
          for path in (source, target)]
  path = write_task(golden, tmp_path, tokenizers=used, tokenizer_files=both)
  found = run(tmp_path, lines, task_checkpoints=[path], **common)
  assert [(row["output_ids"], row["text"]) for row in found] == answers(
      "prefix/generate/greedy")
  with pytest.raises(errors.InputError, match="was trained with another "
                     "target_tokenizer .*; give that one with --target_tok"):
    run(tmp_path, lines, task_checkpoints=[path], **dict(
        common, target_tokenizer=source))
  elsewhere = write_task(golden, tmp_path / "b", tokenizers=used,
                         tokenizer_files=dict(both, source_tokenizer="gs://a/b"))
  with pytest.raises(errors.InputError, match="no network path is opened"):
    run(tmp_path, lines, task_checkpoints=[elsewhere], **common)


def test_more_positions_than_the_model_has(golden, loaded):
  most = loaded.config.n_positions
  loaded.check_length([1] * (most - 4), "file:1")
  with pytest.raises(errors.InputError, match=(
      "file:1: %d prompt tokens . 4 max_new_tokens are more than the model's %d "
      "positions .n_positions" % (most - 3, most))):
    loaded.check_length([1] * (most - 3), "file:1")


def test_results_that_say_nothing(golden, loaded):
  answerer = generate.Answerer(
      loaded, None, generate.Options(model_dir=golden.checkpoint), "file")
  for score, message in ((np.nan, "not a finite number"),
                         (-np.inf, "leave no token")):
    with pytest.raises(errors.InputError, match="file:7: .*" + message):
      answerer._check(generator.Result([1], score), 7)


@pytest.mark.parametrize("options,message", [
    (dict(num_beams=98), "num_beams is 98; .* vocabulary .97."),
    (dict(temperature=0.5), "do_sample is off"),
    (dict(do_sample=True, num_beams=2), "drop one of them"),
    (dict(model_dir="nowhere"), "model_dir nowhere is not there"),
])
def test_flags_that_cannot_be(golden, options, message):
  with pytest.raises(errors.InputError, match=message):
    generate.set_up(generate.Options(
        **dict(dict(model_dir=golden.checkpoint), **options)))


def test_a_bert_does_not_generate(tmp_path):
  (tmp_path / "config.json").write_text(
      json.dumps({"model_type": "bert", "vocab_size": 5}))
  (tmp_path / "model.safetensors").write_bytes(b"")
  with pytest.raises(errors.InputError, match="model_type is 'bert'; a model "
                     "that generates is one of .*gpt2"):
    generate.set_up(generate.Options(model_dir=str(tmp_path)))


def test_a_bert_of_google_does_not_generate(tmp_path):
  (tmp_path / "bert_config.json").write_text(json.dumps({"vocab_size": 5}))
  (tmp_path / "bert_model.ckpt.index").write_bytes(b"")
  with pytest.raises(errors.InputError, match="holds a BERT, which does not gen"):
    generate.set_up(generate.Options(model_dir=str(tmp_path)))


def test_a_gpt2_is_no_bert(golden):
  with pytest.raises(errors.InputError, match="gpt2, and this program needs a "
                     "BERT"):
    model_dir.open_bert_dir(golden.checkpoint)


@pytest.mark.parametrize("changes,message", [
    (dict(base={"path": "/other", "sha256": "0" * 64}),
     "was trained on other weights than those in model_dir"),
    (dict(tune="adapters"), "lacks gpt2/decoder/layer_0/attention/output/"
                            "adapters/weights1|lacks .*LayerNorm"),
    (dict(prefix_length=3), "gpt2/prefix/embeddings has shape"),
    (dict(config={"model_type": "gpt2", "vocab_size": 5}),
     "was trained on a gpt2 with vocab_size=5, and model_dir has"),
])
def test_task_checkpoints_that_do_not_fit(golden, tmp_path, changes, message):
  path = write_task(golden, tmp_path, **changes)
  with pytest.raises(errors.InputError, match=message):
    generate.set_up(generate.Options(model_dir=golden.checkpoint,
                                     task_checkpoints=[path]))


class Numbers(object):
  """A tokenizer of numbers."""

  def encode(self, text):
    return [int(word) for word in text.split()]


def test_behind_a_text_stands_what_its_run_put_there(golden, tmp_path):
  path = write_task(golden, tmp_path, source_end=[96])
  config = gpt2.GPT2Config.from_json_file(
      os.path.join(golden.checkpoint, "config.json"))
  base = sequence_weights.open_weights(
      model_dir.open_model_dir(golden.checkpoint), config)
  task, = generator.read_tasks([path], config, base, "float32")
  assert task.source_end == (96,)
  prompt = lambda line: generate.read_prompt(
      json.dumps(line).encode(), 1, "FILE", Numbers(), config, task.source_end)
  assert prompt({"text": "7 8"}) == [7, 8, 96]
  assert prompt({"input_ids": [7, 8]}) == [7, 8]
  other = write_task(golden, tmp_path, kind="adapters")
  tasks = generator.read_tasks([path, other], config, base, "float32")
  with pytest.raises(errors.InputError, match=r"the tokens \[96\] behind each"):
    generator.Generator(tasks, base, None)


def test_a_directorys_own_settings(golden, tmp_path, caplog):
  (tmp_path / "generation_config.json").write_text(json.dumps({
      "num_beams": 4, "no_repeat_ngram_size": 3, "eos_token_id": [96, 5],
      "top_k": 50, "forced_eos_token_id": 96, "suppress_tokens": [3],
      "max_new_tokens": 30}))
  source = model_dir.open_model_dir(golden.checkpoint)
  source.path = str(tmp_path)
  config = gpt2.GPT2Config.from_dict(dict(vocab_size=97, n_embd=24, n_head=4))
  found = defaults.options({"max_new_tokens": 7}, source, config)
  assert (found.num_beams, found.no_repeat_ngram_size, found.eos_token_ids,
          found.pad_token_id, found.top_k, found.forced_eos_token_id,
          found.max_new_tokens) == (4, 3, (96, 5), 96, 0, 96, 7)
  assert "suppress_tokens=[3] is not built here" in caplog.text
