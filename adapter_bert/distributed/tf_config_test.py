"""What a TF_CONFIG says, and what is wrong in one."""

import json

import pytest

from adapter_bert.base import errors
from adapter_bert.distributed import tf_config


def text_of(kind="worker", index=0, **cluster_of):
  return json.dumps({
      "cluster": cluster_of or {"worker": ["a:1", "b:2", "c:3"]},
      "task": {"type": kind, "index": index}})


def test_places():
  place = tf_config.parse(text_of(index=1))
  assert (place.name, place.rank, place.is_chief, place.address) == (
      "worker 1", 1, False, "b:2")
  assert tf_config.parse(text_of()).is_chief
  with_chief = dict(chief=["a:1"], worker=["b:2", "c:3"])
  place = tf_config.parse(text_of("worker", "0", **with_chief))
  assert (place.name, place.rank, place.is_chief) == ("worker 0", 1, False)
  assert place.names == ("chief", "worker 0", "worker 1")
  assert tf_config.parse(text_of("chief", 0, **with_chief)).is_chief
  assert tf_config.parse(
      text_of(worker=["[::1]:2222"])).address == "[::1]:2222"


@pytest.mark.parametrize("text,words", [
    (None, ["not set", '"cluster"']),
    ("{'cluster'", ["not JSON: line 1, column 2", '{"cluster"']),
    ("[" * 100000, ["nested too deeply", '{"cluster"']),
    ("[]", ["holds []", "an object"]),
    ('{"task": {"type": "worker", "index": 0}}', ["has no 'cluster'"]),
    ('{"cluster": {"worker": ["a:1"]}}', ["has no 'task'"]),
    ('{"cluster": {"worker": ["a:1"]}, "task": []}', ["task is []", "object"]),
    ('{"cluster": 1, "task": {}}', ["cluster is 1", "object"]),
    ('{"cluster": {}, "task": {"type": "worker", "index": 0}}',
     ['needs "cluster"', "{}"]),
    ('{"cluster": {"worker": null}, "task": {"type": "worker", "index": 0}}',
     ["cluster.worker", "null"]),
    (text_of(worker=["a:1", 5]), ["cluster.worker[1] is 5", "a string"]),
    (text_of(kind=7), ["task.type is 7", "a string"]),
    (text_of(index="9" * 5000), ["task.index", "0 to 2"]),
    (text_of().replace('"index": 0', '"index": ' + "9" * 400),
     ["has 400 digits"]),
    (text_of(index=[0]), ["task.index", "[0]"]),
    (text_of("evaluator"), ["task.type", "worker", "evaluator"]),
    (text_of("chief"), ["task.type", "worker", "chief"]),
    (text_of(index=3), ["task.index", "0 to 2", "3"]),
    (text_of(index=-1), ["task.index", "-1"]),
    (text_of(index="one"), ["task.index", "one"]),
    (text_of(index=True), ["task.index", "true"]),
    (text_of(worker=["a:1"], ps=["b:2"]), ["ps", "chief", "worker"]),
    (text_of(worker="a:1"), ["cluster.worker", "list", "a:1"]),
    (text_of(worker=[]), ["cluster.worker", "list"]),
    (text_of(worker=["a"]), ["host:port", '"a"']),
    (text_of(worker=["a:0"]), ["port", "a:0"]),
    (text_of(worker=["a:70000"]), ["65535", "a:70000"]),
    (text_of(worker=["http://a:1"]), ["host:port", "http"]),
    (text_of(worker=["a:1", "b:2", "a:1"]), ["twice", "a:1"]),
    (text_of(chief=["a:1", "b:2"], worker=["c:3"]), ["chief", "one"]),
])
def test_what_is_wrong_in_tf_config(text, words):
  with pytest.raises(errors.InputError) as caught:
    tf_config.parse(text)
  line = str(caught.value)
  assert "TF_CONFIG" in line and "\n" not in line
  for word in words:
    assert word in line, line


def test_processes_are_counted_whatever_else_it_says():
  assert tf_config.count_processes(text_of(chief=["a:1"], ps=["b"])) == 2
  for text in (None, "", "[]", "{'", "[" * 100000):
    assert tf_config.count_processes(text) == 0
