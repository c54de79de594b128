"""The schedulers' examples make a TF_CONFIG that is right, and real flags.

Run with programs in place of the scheduler's and of Python that print what
they are given.
"""

import dataclasses
import os
import re
import subprocess
import textwrap

from adapter_bert.distributed import tf_config
from adapter_bert import settings

HERE = os.path.dirname(os.path.abspath(__file__))


def run(command, tmp_path, **environment):
  """What a command prints; `python` prints TF_CONFIG and its arguments."""
  programs = {
      "python": 'echo "$TF_CONFIG"; shift; echo "$@"; exit ${STATUS:-0}',
      "scontrol": 'if [ $1 = show ]; then printf "node7\\nnode8\\n"; '
                  'else echo requeued; fi',
      "srun": 'while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"'}
  for name, text in programs.items():
    (tmp_path / name).write_text("#!/bin/sh\n" + text + "\n")
    (tmp_path / name).chmod(0o755)
  path = "%s:%s" % (tmp_path, os.environ["PATH"])
  return subprocess.run(
      command, env=dict(environment, PATH=path), check=False,
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def check_flags(line):
  fields = {f.name for f in dataclasses.fields(settings.RunConfig)}
  names = re.findall(r"--(\w+)", line)
  assert len(names) > 8 and set(names) <= fields
  assert "--distribution=multi_worker" in line


def test_kubernetes(tmp_path):
  with open(os.path.join(HERE, "kubernetes.yaml"), encoding="utf-8") as source:
    text = source.read()
  script = textwrap.dedent(
      re.search(r"args:\n +- \|\n(.*?)\n +ports:", text, re.S).group(1))
  done = run(["sh", "-c", script], tmp_path, JOB_COMPLETION_INDEX="2")
  config, flags = done.stdout.splitlines()
  place = tf_config.parse(config)
  assert place.address == "adapter-bert-2.adapter-bert:12345"
  # The Job's name, the Service's, its port; and the number in all its places.
  assert len(re.findall("^  name: adapter-bert$", text, re.M)) == 3
  assert "subdomain: adapter-bert" in text
  assert len(re.findall(r"^[ -]*port: 12345$", text, re.M)) == 2
  # Who may connect: the pods of the Job, to the pods of the Job.
  policy = re.search("kind: NetworkPolicy\n(.*?)---", text, re.S).group(1)
  assert policy.count("job-name: adapter-bert") == 2
  counts = re.findall(r"[:=] ?(\d+) +# workers", text)
  assert counts == [str(len(place.names))] * 3
  check_flags(flags)


def test_slurm(tmp_path):
  script = os.path.join(HERE, "slurm.sh")
  for rank, name in enumerate(("node7", "node8")):
    done = run(["bash", script], tmp_path, SLURM_JOB_ID="1001",
               SLURM_JOB_NODELIST="node[7-8]", SLURM_PROCID=str(rank))
    config, flags = done.stdout.splitlines()
    place = tf_config.parse(config)
    assert (place.rank, place.address) == (rank, name + ":13001")
    assert len(place.names) == 2
    check_flags(flags)
    assert done.returncode == 0


def test_slurm_queues_a_failed_run_again_but_not_for_ever(tmp_path):
  script = os.path.join(HERE, "slurm.sh")
  settings = dict(SLURM_JOB_ID="7", SLURM_JOB_NODELIST="n", SLURM_PROCID="0",
                  STATUS="3")
  done = run(["bash", script], tmp_path, **settings)
  assert done.returncode == 3 and "requeued" in done.stdout
  done = run(["bash", script], tmp_path, SLURM_RESTART_COUNT="10", **settings)
  assert done.returncode == 3 and "requeued" not in done.stdout
