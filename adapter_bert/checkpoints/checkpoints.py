"""The old names of what is in weights.py, matching.py and task.py now."""

# pylint: disable=unused-import
from adapter_bert.checkpoints.matching import Match
from adapter_bert.checkpoints.matching import export_full
from adapter_bert.checkpoints.matching import load_ops
from adapter_bert.checkpoints.matching import match
from adapter_bert.checkpoints.matching import match_shapes
from adapter_bert.checkpoints.matching import report
from adapter_bert.checkpoints.task import write as write_task
from adapter_bert.checkpoints.weights import BASE_CHECKPOINT_NAME
from adapter_bert.checkpoints.weights import CHECKPOINT_NAME
from adapter_bert.checkpoints.weights import Weights
from adapter_bert.checkpoints.weights import check_base
from adapter_bert.checkpoints.weights import find
from adapter_bert.checkpoints.weights import find_base
from adapter_bert.checkpoints.weights import newest_readable as newest
from adapter_bert.checkpoints.weights import numbered
from adapter_bert.checkpoints.weights import step_of
from adapter_bert.checkpoints.weights import write
from adapter_bert.names import is_model_variable
