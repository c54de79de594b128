"""The one table of settings.

Each row says all there is to say of a setting. Made from the rows are RunConfig
and the flags of the programs, what run.json records and compares, what a sweep
may vary, what the processes of a run must agree in, and docs/flags.md:

    python -m adapter_bert.settings > docs/flags.md

Rules between settings are in training/plan.py: here is what a value can be,
whatever the others are. Programs that are told of no run (sweep, figures,
count_parameters, convert, launch_local) have rows of this kind in their own
files, for what only they take.
"""

import dataclasses
import math
import re

from adapter_bert.base import flags as flags_lib
from adapter_bert.base.flags import REQUIRED
from adapter_bert.base.flags import Setting
from adapter_bert.checkpoints import bert_config
from adapter_bert.data import tasks
from adapter_bert.distributed import devices as distribution
from adapter_bert.models.encoder_decoder import PREFIX_PLACES
from adapter_bert.tuning import Tuning
from adapter_bert.training import own_adapters
from adapter_bert.training import prefix_start
from adapter_bert.training import specs
import modeling

# program -> (its command, the flags without which it does not start).
PROGRAMS = {
    "run_classifier": ("python run_classifier.py", (
        "data_dir", "output_dir")),
    "predict_tasks": ("python -m adapter_bert.serving.predict_tasks", (
        "task_checkpoints",)),
    "run_seq2seq": ("python -m adapter_bert.run_seq2seq", (
        "model_dir", "data_dir", "output_dir")),
    "export": ("python -m adapter_bert.serving.export", (
        "task_checkpoints", "output_dir")),
    "generate": ("python -m adapter_bert.generation.generate", ("model_dir",)),
    "exchange": ("python -m adapter_bert.serving.exchange", (
        "input_dir", "output_dir")),
    "export_generator": ("python -m adapter_bert.serving.export_generator", (
        "model_dir", "output_dir")),
}


# ------------------------------------------------- what texts some rows allow


def _check_tune(text):
  """Raises ValueError for a method that is unknown."""
  if text != "top_n":  # Which needs top_n_layers, and is known.
    Tuning(text)


def layers_of(text, name="adapter_layers"):
  """"6-11" or "0,2,4-5" -> a sorted list of layers.

  Raises: ValueError for another text.
  """
  layers = set()
  for part in text.split(","):
    span = re.fullmatch(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?", part)
    first, last = span and (
        int(span.group(1)), int(span.group(2) or span.group(1))) or (1, 0)
    if first > last:
      raise ValueError(
          "%s is %r; it must be layers and spans of layers, as in 6-11 or "
          "0,2,4-5" % (name, text))
    layers.update(range(first, last + 1))
  return sorted(layers)


def prefix_places(text):
  """"encoder,cross" -> those of PREFIX_PLACES, in their order.

  Raises: ValueError for another text.
  """
  places = text.split(",")
  unknown = [place for place in places if place not in PREFIX_PLACES]
  if unknown:
    raise ValueError("prefix_in names %r; it can be some of %s" %
                     (unknown[0], ",".join(PREFIX_PLACES)))
  return tuple(place for place in PREFIX_PLACES if place in places)


def numbers_of(texts):
  """A list of texts -> list of float.

  Raises: ValueError for another text, and for what is not finite.
  """
  numbers = [float(text) for text in texts]
  if not all(map(math.isfinite, numbers)):
    raise ValueError("merge is %s; its weights must be finite" %
                     ",".join(texts))
  return numbers


# ------------------------------------------------------------------ the table

# Both of the programs that train.
_RUNS = ("run_classifier", "run_seq2seq")
_ALL_MODELS = ("run_classifier", "predict_tasks", "export", "sweep", "figures")

# A run: one field of RunConfig, and one flag of run_classifier.py, each.
RUN = (
    Setting("data_dir", str, REQUIRED,
            "The directory of the task's .tsv files.",
            reference=True, agreed=None,
            programs=("run_classifier", "run_seq2seq", "figures"), is_path=True),
    Setting("model_dir", str, None,
            "The directory of the pre-trained model, as Google or OpenAI "
            "publishes it or Hugging Face saves it; for a BERT in place of "
            "bert_config_file, vocab_file and init_checkpoint, which go over "
            "what it holds.", agreed=None, swept=False,
            programs=_ALL_MODELS + ("exchange", "run_seq2seq", "generate",
                                    "export_generator"), is_path=True),
    Setting("bert_config_file", str, None,
            "The bert_config.json of the pre-trained BERT.", reference=True,
            agreed=None, swept=False,
            programs=("run_classifier", "predict_tasks", "sweep", "exchange"),
            is_path=True),
    Setting("task_name", str, None,
            "The GLUE task: %s. Case does not matter." % ", ".join(
                task.display_name for task in tasks.TASKS.values()),
            reference=True,
            programs=_RUNS + ("exchange",)),
    Setting("vocab_file", str, None,
            "The vocabulary that BERT was trained with.", reference=True,
            agreed=None, swept=False, programs=_ALL_MODELS + ("exchange",),
            is_path=True),
    Setting("output_dir", str, REQUIRED,
            "Where checkpoints and results are written.", reference=True,
            decides_result=False, agreed=None, swept=False, is_path=True,
            programs=_RUNS + ("exchange", "export", "export_generator")),
    Setting("task_spec", str, None,
            "A JSON file that describes a task of your own, in place of "
            "task_name; task_specs.py says what is in it.", agreed=None,
            is_path=True,
            programs=_RUNS + ("exchange",)),
    Setting("task_files_anywhere", bool, False,
            "The files of task_spec may lie outside of data_dir.",
            decides_result=False, agreed=None, swept=False,
            programs=_RUNS + ("exchange",)),
    Setting("init_checkpoint", str, None,
            "The pre-trained BERT: a checkpoint's prefix or its directory.",
            reference=True, agreed=None, swept=False,
            programs=_ALL_MODELS + ("exchange",),
            is_path=True),
    Setting("hidden_act", str, None,
            "The activation, in place of the config's: gelu is Google's tanh "
            "form, gelu_erf the exact one.", allowed=bert_config.HIDDEN_ACTS,
            swept=False,
            programs=("run_classifier", "exchange")),
    Setting("head_labels", list, None,
            "Comma-separated: the labels of the rows of a fine-tuned Hugging "
            "Face classifier, in their order, where its config has no names.",
            swept=False,
            programs=("run_classifier", "exchange")),
    Setting("fresh_pooler", bool, False,
            "A new pooler in place of the model's, trained and saved with the "
            "head: for a model without one, or with one that was never "
            "trained.", recorded="run"),
    Setting("do_lower_case", bool, None,
            "Lower-case the text: true for uncased models; default: what the "
            "tokenizer's files say, or else true.", reference=True,
            recorded="run",
            programs=("run_classifier", "exchange")),
    Setting("max_seq_length", int, 128,
            "Longer inputs are truncated to this many tokens.", least=1,
            reference=True, recorded="schedule",
            programs=("run_classifier", "predict_tasks", "exchange")),
    Setting("do_train", bool, False, "Train.", reference=True,
            decides_result=False, swept=False,
            programs=_RUNS),
    Setting("do_eval", bool, False, "Evaluate on the dev set.", reference=True,
            decides_result=False, swept=False,
            programs=_RUNS),
    Setting("do_predict", bool, False, "Predict the test set.", reference=True,
            decides_result=False, swept=False,
            programs=_RUNS),
    Setting("train_batch_size", int, 32,
            "Examples in a training batch, over all devices.", least=1,
            reference=True, recorded="schedule",
            programs=_RUNS),
    Setting("eval_batch_size", int, 32,
            "Examples in an evaluation batch; results do not depend on it.",
            least=1, reference=True, decides_result=False,
            programs=("run_classifier", "run_seq2seq", "figures")),
    Setting("predict_batch_size", int, 32,
            "Examples in a prediction batch; results do not depend on it.",
            least=1, reference=True, decides_result=False,
            programs=_RUNS),
    Setting("learning_rate", float, 5e-5, "Adam's learning rate at its peak.",
            least=0, reference=True, recorded="schedule",
            programs=_RUNS),
    Setting("num_train_epochs", float, 3.0,
            "How often each training example is seen.", least=0,
            reference=True, recorded="schedule",
            programs=_RUNS),
    Setting("warmup_proportion", float, 0.1,
            "The share of the steps in which the learning rate rises from 0.",
            least=0, most=1, reference=True, recorded="schedule",
            programs=_RUNS),
    # With save_best each checkpoint is a candidate.
    Setting("save_checkpoints_steps", int, 1000,
            "The steps from one checkpoint to the next.", least=1,
            reference=True,
            programs=_RUNS),
    Setting("save_checkpoints_secs", int, 300,
            "The most seconds from one checkpoint to the next.", least=1,
            programs=_RUNS),
    Setting("keep_checkpoint_max", int, 5,
            "How many of the newest checkpoints stay.", least=1,
            decides_result=False,
            programs=_RUNS),
    Setting("seed", int, 0,
            "Decides initial values, the order of the data, dropout, and what is "
            "sampled.",
            least=0, most=2**31 - 1, recorded="schedule",
            programs=("run_classifier", "run_seq2seq", "generate")),
    Setting("tune", str, "adapters",
            "What is trained: %s, or some of %s joined with +." % (
                ", ".join(Tuning.METHODS),
                ", ".join(Tuning.COLLECTIONS)),
            check=_check_tune, recorded="run",
            programs=_RUNS),
    Setting("top_n_layers", int, None,
            "For tune=top_n: how many of the top layers.", least=1,
            recorded="run"),
    Setting("adapter_size", int, 64, "The adapters' bottleneck.", least=1,
            recorded="run",
            programs=_RUNS),
    Setting("adapter_init_scale", float, 1e-3,
            "The standard deviation of their initial weights.", least=0,
            recorded="schedule",
            programs=_RUNS),
    Setting("adapter_fn", str, None,
            "An adapter of your own in place of the bottleneck: "
            "package.module:function. Programs that read task checkpoints take "
            "several with commas between them, those that a run.json may name.",
            check=own_adapters.check_names, recorded="run",
            programs=_RUNS + ("predict_tasks", "export", "generate",
                              "export_generator", "figures")),
    Setting("adapter_layers", str, None,
            "The layers that get adapters, as in 6-11 or 0,2,4-5; default: "
            "all.", check=layers_of, recorded="run",
            programs=_RUNS),
    Setting("adapter_order", str, "houlsby",
            "houlsby: two adapters a layer; pfeiffer: one, after the "
            "feed-forward half, and between two uses of its LayerNorm.",
            allowed=specs.ADAPTER_ORDERS, recorded="run"),
    Setting("adapter_act", str, "gelu",
            "The adapters' activation; gelu is BERT's tanh form, gelu_erf the "
            "exact one.", allowed=tuple(sorted(modeling.ACTIVATIONS)),
            recorded="run",
            programs=_RUNS),
    Setting("prefix_length", int, 20,
            "With prefixes: how many keys and values each layer gets.", least=1,
            recorded="run",
            programs=_RUNS),
    Setting("prefix_hidden_size", int, 0,
            "The width of the MLP that makes the prefixes in training; 0: they "
            "are trained themselves.", least=0, recorded="run",
            programs=_RUNS),
    Setting("prefix_positions", str, None,
            "Where tokens stand: after the prefix, or unshifted, from 0 on; "
            "default: unshifted, in GPT-2 after. T5 has distances.",
            allowed=("after", "unshifted"), recorded="run",
            programs=_RUNS),
    Setting("prefix_init", str, "random",
            "What prefixes start from; words: from the keys and values of the "
            "first tokens of the training examples, in a BERT.",
            allowed=tuple(prefix_start.KINDS), recorded="schedule",
            programs=_RUNS),
    Setting("prefix_dropout", float, 0.0,
            "The probability of dropping an element of the prefixes in "
            "training.", least=0, most=0.99, recorded="schedule",
            programs=_RUNS),
    Setting("prefix_init_scale", float, 1.0,
            "The standard deviation of the initial values of the prefixes, or of "
            "what their MLP reads.", least=0, recorded="schedule",
            programs=_RUNS),
    Setting("bucket_window", int, 0,
            "Sort the examples of this many batches by length, to pad less; 0: "
            "off.",
            least=0, recorded="schedule",
            programs=_RUNS),
    Setting("compile_chains", bool, True,
            "Compile the element-wise chains of the training step with XLA: "
            "faster, after some seconds for each new length of a batch.",
            recorded="schedule",
            programs=_RUNS),
    Setting("precision", str, "float32",
            "%s; bfloat16 keeps the frozen weights in half the memory, and "
            "multiplies faster where the processor has it." %
            " or ".join(specs.PRECISIONS),
            allowed=tuple(specs.PRECISIONS), recorded="schedule",
            programs=_RUNS + ("predict_tasks", "export", "generate",
                              "export_generator")),
    Setting("tokenize_workers", int, 1, "Processes that tokenize.", least=1,
            decides_result=False, agreed=None,
            programs=_RUNS),
    Setting("share_parameter_across_layers", bool, None,
            "Layers share their weights (ALBERT); over the config's key of "
            "that name."),
    Setting("layers_per_group", int, None,
            "With sharing: this many neighbouring layers share; over the "
            "config's key. Without it all do.", least=1),
    Setting("share_adapters", bool, None,
            "With sharing: whether adapters are shared too; over the config's "
            "key."),
    Setting("init_shared_from", str, None,
            "Start shared layers from a plain BERT: from the first or the mean "
            "of the layers of a group.", allowed=("first", "mean"),
            recorded="run"),
    Setting("task_checkpoint", str, None,
            "Evaluate and predict with this task checkpoint (a run's task/ or "
            "best/) over init_checkpoint.", agreed="given", swept=False,
            is_path=True,
            programs=_RUNS),
    Setting("force_base", bool, False,
            "Take task_checkpoint with another base than it was trained on.",
            swept=False,
            programs=_RUNS + ("predict_tasks", "export", "generate",
                              "export_generator", "figures")),
    Setting("export_full_checkpoint", str, None,
            "Write the whole model to this prefix, for tools that load the "
            "reference's checkpoints.", decides_result=False, agreed="given",
            swept=False, is_path=True),
    Setting("save_best", bool, False,
            "At each checkpoint, evaluate on dev, and keep the best by the "
            "task's metric in best/, to be evaluated and predicted with.",
            programs=_RUNS),
    Setting("early_stopping", int, 0,
            "With save_best: stop after this many evaluations without a better "
            "one; 0: never.", least=0,
            programs=_RUNS),
    Setting("distribution", str, distribution.ONE_DEVICE,
            "%s; the last takes the processes from TF_CONFIG, and output_dir "
            "must be one that all of them share." %
            ", ".join(distribution.DISTRIBUTIONS),
            allowed=distribution.DISTRIBUTIONS,
            programs=_RUNS),
    Setting("devices", str, None,
            "As in gpu:0,gpu:1, or cpu:0,cpu:1 for parts of the CPU; default "
            "for %s and %s: all GPUs, or else the CPU." %
            distribution.DISTRIBUTIONS[1:], agreed=None,
            programs=_RUNS),
    Setting("start_timeout", int, 600,
            "With multi_worker: the seconds to wait for the other processes "
            "to start.", least=1, decides_result=False, agreed=None,
            programs=_RUNS),
    Setting("heartbeat_timeout", float, 30.0,
            "With multi_worker: all stop when one of them gave no sign for so "
            "many seconds.", least=1, decides_result=False, agreed=None,
            programs=_RUNS),
)

# Flags of the reference that steer a TPU: no field of RunConfig.
TPU = tuple(
    Setting(name, kind, default, text, reference=True, decides_result=False,
            agreed=None, swept=False)
    for name, kind, default, text in (
        ("use_tpu", bool, False, "Not supported."),
        ("tpu_name", str, None, "Has no effect here."),
        ("tpu_zone", str, None, "Has no effect here."),
        ("gcp_project", str, None, "Has no effect here."),
        ("master", str, None, "Has no effect here."),
        ("num_tpu_cores", int, 8, "Has no effect here."),
        ("iterations_per_loop", int, 1000, "Has no effect here.")))


def _own(programs, *arguments, **keywords):
  """The row of a setting of programs that are not runs."""
  return Setting(*arguments, agreed=None, swept=False,
                 programs=tuple(programs.split()), **keywords)


# What programs that answer a file of lines are told.
ANSWER = (
    _own("predict_tasks export generate export_generator", "task_checkpoints",
         list, REQUIRED,
         "Comma-separated: the directories output_dir/task or output_dir/best "
         "of runs on one and the same model.", is_path=True),
    _own("predict_tasks generate", "input", str, None,
         "Sentences or pairs with a tab for predict_tasks, JSON for generate, "
         "one on a line; default: stdin.", is_path=True),
    _own("predict_tasks generate", "output", str, None,
         "JSON lines; default: stdout.", decides_result=False, is_path=True),
    _own("predict_tasks", "header", bool, False,
         "Whether the first line is a header, to be skipped."),
    _own("predict_tasks", "keep_going", bool, False,
         "Answer a line that is wrong with what is wrong, and go on."),
    _own("predict_tasks export", "drop_adapters", str, None,
         "Leave out the adapters of these layers, as in 0-3.",
         check=lambda text: layers_of(text, "drop_adapters")),
    _own("predict_tasks generate", "batch_size", int, 32,
         "Lines in a batch, counted once for each task that they are asked "
         "about; results do not depend on it.", least=1,
         decides_result=False),
)

# How a model is exported.
EXPORT = (
    _own("export export_generator", "model_version", int, None,
         "The number of the directory in output_dir; default: the next.",
         least=1, decides_result=False),
    _own("export", "merge", list, None,
         "In place of a SavedModel, write to output_dir the weighted mean of "
         "the task checkpoints as a new one: their weights, as in 0.5,0.5; "
         "where they do not sum to 1 it is task arithmetic.",
         check=numbers_of),
)

_GENERATORS = "generate run_seq2seq export_generator"

# How text is generated. One that is not given is what the model's
# generation_config.json says; what that does not say is in the help.
GENERATE = (
    _own(_GENERATORS, "max_new_tokens", int, None,
         "The most tokens that are generated; 20.", least=1),
    _own(_GENERATORS, "min_new_tokens", int, None,
         "No end comes before this many tokens; 0.", least=0),
    _own(_GENERATORS, "num_beams", int, None,
         "Hypotheses of a beam search; 1: greedy, the likeliest token each "
         "time.", least=1),
    _own("generate export_generator", "num_return_sequences", int, None,
         "Results for a prompt: the best of the beams, or samples; 1.",
         least=1),
    _own(_GENERATORS, "length_penalty", float, None,
         "A score is the sum of log-probabilities, divided by the length to "
         "the power of this; 1."),
    _own(_GENERATORS, "beam_early_stopping", str, None,
         "When a beam search is done: true: with num_beams results; false: when "
         "the best hypothesis, as long as it is, would be none of them; never: "
         "the same, with the length that it could get; false.",
         allowed=("true", "false", "never")),
    _own(_GENERATORS, "do_sample", bool, None,
         "Draw tokens at random, by their probability."),
    _own(_GENERATORS, "temperature", float, None,
         "With do_sample: the scores are divided by it; 1.", least=0),
    _own(_GENERATORS, "top_k", int, None,
         "With do_sample: draw among this many of the likeliest tokens; 0: "
         "all.",
         least=0),
    _own(_GENERATORS, "top_p", float, None,
         "With do_sample: draw among the likeliest tokens that have this "
         "probability together; the one that crosses it is among them; 1.",
         least=0, most=1),
    _own(_GENERATORS, "repetition_penalty", float, None,
         "Tokens that are there already get a score that is smaller by this "
         "factor; 1.", least=0),
    _own(_GENERATORS, "no_repeat_ngram_size", int, None,
         "No sequence of this many tokens comes twice; 0: it may.", least=0),
    _own(_GENERATORS, "forced_bos_token_id", int, None,
         "The first token that is generated; -1: none is forced.", least=-1),
    _own(_GENERATORS, "forced_eos_token_id", int, None,
         "The last token, where max_new_tokens is reached; -1: none is "
         "forced.", least=-1),
)


def _sequence(*arguments, **keywords):
  return Setting(*arguments, swept=False, programs=("run_seq2seq",), **keywords)


# What a run of a sequence model is told beside the rest.
SEQUENCES = (
    _sequence("max_source_length", int, 128,
              "Longer sources are cut after this many tokens.", least=2,
              recorded="schedule"),
    _sequence("max_target_length", int, 128,
              "Longer targets are cut after this many tokens.", least=2,
              recorded="schedule"),
    _sequence("label_smoothing", float, 0.0,
              "In training, so much of the probability is spread evenly over "
              "the vocabulary.", least=0, most=0.99, recorded="schedule"),
    _own("run_seq2seq generate", "source_tokenizer", str, None,
         "The tokenizer of sources, a file or a directory; default: the "
         "model's; of generate, that of the task checkpoints' runs.",
         is_path=True),
    _own("run_seq2seq generate", "target_tokenizer", str, None,
         "The tokenizer of targets; default: that of sources; of generate, that "
         "of the task checkpoints' runs.", is_path=True),
    _sequence("separator", str, None,
              "GPT-2: the token between source and target; default: the end of "
              "text.", recorded="run"),
    _sequence("prefix_in", str, ",".join(PREFIX_PLACES),
              "BART and T5: where prefixes stand.", check=prefix_places,
              recorded="run"),
    _sequence("cross_adapters", bool, False,
              "BART and T5: adapters after cross-attention, too.",
              recorded="run"),
)

# What passes between this project and other libraries.
EXCHANGE = (
    _own("exchange", "input_dir", str, REQUIRED,
         "A directory with an adapter or a prefix of another library, or a "
         "task checkpoint.", is_path=True,
         local="what other libraries save is mapped into memory"),
    _own("exchange", "to", str, None,
         "What a task checkpoint is written for; another library's directory "
         "becomes a task checkpoint.", allowed=("task", "adapterhub", "peft")),
    _own("exchange", "adapter_name", str, None,
         "What the adapter is called in AdapterHub; default: as the task."),
    _own("exchange", "model_name", str, None,
         "What the model is called in the other library, such as "
         "bert-base-uncased; default: the name of its directory."),
    _own("exchange", "overwrite", bool, False,
         "Replace the task checkpoint, or another library's directory, in "
         "output_dir."),
)

ALL = RUN + TPU + ANSWER + EXPORT + GENERATE + SEQUENCES + EXCHANGE

# Everything that a run is told; one field for each flag of that name.
RunConfig = flags_lib.config_class("RunConfig", RUN)


# ------------------------------------------------------------ parts of it


def named(name):
  """The Setting with that name."""
  found, = [setting for setting in ALL if setting.name == name]
  return found


def of_program(program):
  """The Settings that are flags of a program, in the table's order."""
  return [setting for setting in ALL if program in setting.programs]


def sequence_config_class():
  """The config class of run_seq2seq: a field for each of its flags."""
  _, required = PROGRAMS["run_seq2seq"]
  return flags_lib.config_class("SequenceConfig", of_program("run_seq2seq"),
                                required)


def options_class(program):
  """The config class of a program of PROGRAMS that does not have RunConfig's.

  Of what a run requires it requires only what PROGRAMS says.
  """
  _, required = PROGRAMS[program]
  return flags_lib.config_class("Options", optional(of_program(program)),
                                required)


def optional(settings):
  """The Settings with None in place of a REQUIRED default."""
  return [dataclasses.replace(setting, default=setting.plain_default)
          for setting in settings]


def swept():
  """name -> Setting of those that a sweep may vary."""
  return {setting.name: setting for setting in RUN if setting.swept}


def recorded(how, program="run_classifier"):
  """The names of those that run.json records "run" or "schedule"."""
  return [setting.name for setting in of_program(program)
          if setting.recorded == how]


def agreed(config, program="run_classifier"):
  """What all processes of a run must have in common of its config: a dict."""
  of_run = [s for s in of_program(program) if s not in TPU]
  facts = {s.name: getattr(config, s.name) for s in of_run
           if s.agreed == "value"}
  facts.update({s.name + " is given": bool(getattr(config, s.name))
                for s in of_run if s.agreed == "given"})
  return facts


# ----------------------------------------------------------- docs/flags.md

_HEAD = """\
# Flags

This page is made by `python -m adapter_bert.settings > docs/flags.md`; a test
compares. Every flag can also stand in a file, one on a line: `--flagfile=FILE`.
The other programs (`adapter-bert-sweep`, `-figures`, `-count`, `-convert`,
`-local`) show theirs with `--help`.

Columns: **values** is what a flag can be. **reference**: google-research's
adapter-bert has this flag too, with the same meaning. **result**: weights or
scores can depend on it. **goes on**: what happens if a run that goes on in its
output_dir gets another value: *refused*, or *said* (it goes on with the new
value and says so); without a word nothing is compared. **processes**: whether
all processes of a run with `--distribution=multi_worker` must be given the same
value (*same*), or all of them one of their own or none (*all or none*).
**sweep**: a sweep may vary it."""

_COLUMNS = ("flag", "default", "values", "meaning", "reference", "result",
            "goes on", "processes", "sweep")


def flags_page():
  """The text of docs/flags.md."""
  blocks = [_HEAD]
  for program, (command, required) in PROGRAMS.items():
    rows = [_COLUMNS, ("---",) * len(_COLUMNS)] + [
        _row(setting, setting.name in required)
        for setting in of_program(program)]
    blocks.append("## %s\n\n`%s`\n\n%s" % (program, command, "\n".join(
        "| %s |" % " | ".join(cells) for cells in rows)))
  return "\n\n".join(blocks) + "\n"


def _row(setting, is_required):
  """A Setting's cells in docs/flags.md, in the order of _COLUMNS."""
  yes = lambda flag: "yes" if flag else ""
  default = setting.plain_default
  if isinstance(default, bool):
    default = str(default).lower()
  return ("`--%s`" % setting.name,
          "required" if is_required else
          "" if default is None else "`%s`" % default,
          ", ".join("`%s`" % value for value in setting.allowed)
          if setting.allowed else setting.wanted,
          setting.help.replace("|", "\\|"), yes(setting.reference),
          yes(setting.decides_result),
          {"run": "refused", "schedule": "said"}.get(setting.recorded, ""),
          {"value": "same", "given": "all or none"}.get(setting.agreed, ""),
          yes(setting.swept))


if __name__ == "__main__":
  print(flags_page(), end="")
