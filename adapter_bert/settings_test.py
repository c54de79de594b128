"""The table: its rows fit each other, and the page made of them is current."""

import dataclasses
import os

import pytest

from adapter_bert.base import errors
from adapter_bert import settings
from adapter_bert import test_util


def test_the_page_of_flags_is_current():
  path = os.path.join(test_util.ROOT, "docs", "flags.md")
  with open(path, encoding="utf-8") as source:
    assert source.read() == settings.flags_page(), (
        "run: python -m adapter_bert.settings > docs/flags.md")


def test_each_setting_has_one_row_that_can_be():
  names = [setting.name for setting in settings.ALL]
  assert len(set(names)) == len(names)
  config = settings.RunConfig(data_dir="d", output_dir="o")  # all defaults
  assert [field.name for field in dataclasses.fields(config)][2:] == [
      s.name for s in settings.RUN if s.default is not settings.REQUIRED]
  for setting in settings.ALL:
    assert setting.help.endswith("."), setting.name
    assert setting.recorded in (None, "run", "schedule")
    assert setting.agreed in (None, "given", "value")


def test_what_the_table_says_of_a_run():
  """Written out once more: a slip in the table changes what runs do."""
  assert settings.recorded("run") == [
      "fresh_pooler", "do_lower_case", "tune", "top_n_layers", "adapter_size",
      "adapter_fn", "adapter_layers", "adapter_order", "adapter_act",
      "prefix_length",
      "prefix_hidden_size",
      "prefix_positions", "init_shared_from"]
  assert set(settings.recorded("schedule")) == {
      "learning_rate", "train_batch_size", "num_train_epochs",
      "warmup_proportion", "seed", "max_seq_length", "bucket_window",
      "compile_chains", "precision", "adapter_init_scale", "prefix_init",
      "prefix_dropout", "prefix_init_scale"}
  assert {s.name for s in settings.RUN if s.agreed is None} == {
      "data_dir", "model_dir", "bert_config_file", "vocab_file", "output_dir",
      "task_spec",
      "task_files_anywhere",
      "init_checkpoint", "tokenize_workers", "devices", "start_timeout",
      "heartbeat_timeout"}
  assert {s.name for s in settings.RUN if s.agreed == "given"} == {
      "task_checkpoint", "export_full_checkpoint"}
  assert {s.name for s in settings.RUN if not s.swept} == {
      "output_dir", "task_files_anywhere", "model_dir", "vocab_file",
      "bert_config_file", "hidden_act", "head_labels",
      "init_checkpoint",
      "do_train", "do_eval", "do_predict", "task_checkpoint", "force_base",
      "export_full_checkpoint"}
  assert {name for name, s in settings.swept().items()
          if not s.decides_result} == {
              "tokenize_workers", "keep_checkpoint_max", "eval_batch_size",
              "predict_batch_size", "start_timeout", "heartbeat_timeout"}


def test_layers():
  assert settings.layers_of("0, 2,4-5") == [0, 2, 4, 5]
  assert settings.layers_of("6-6") == [6]
  for text in ("", "5-4", "1,,2", "-1", "a", "1" * 400):
    with pytest.raises(ValueError, match="adapter_layers"):
      settings.layers_of(text)


def test_processes_agree_on_values_and_on_what_is_given():
  config = settings.RunConfig(data_dir="d", bert_config_file="b",
                              vocab_file="v", output_dir="o",
                              task_checkpoint="t", seed=3)
  facts = settings.agreed(config)
  assert facts["seed"] == 3 and facts["task_checkpoint is given"] is True
  assert facts["export_full_checkpoint is given"] is False
  assert "task_checkpoint" not in facts and "data_dir" not in facts


def test_options_of_a_program():
  options = settings.options_class("predict_tasks")
  assert options(task_checkpoints=["a"], vocab_file="v").max_seq_length == 128
  with pytest.raises(errors.InputError, match="batch_size is 0"):
    options(task_checkpoints=["a"], vocab_file="v", batch_size=0)
