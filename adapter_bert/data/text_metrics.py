"""Metrics of generated text: (references, predictions) -> float.

references: for each prediction a list of one or more str; predictions: list of
str. BLEU and chrF are sacrebleu's, ROUGE is rouge-score's; both are imported
when they are needed (pip install adapter-bert[metrics]).
"""

from adapter_bert.base import errors


def exact_match(references, predictions):
  """The share of predictions equal to one of their references, 0..1."""
  _check(references, predictions)
  return sum(prediction in group for group, prediction in
             zip(references, predictions)) / len(predictions)


def character_error_rate(references, predictions):
  """Edits over the references' characters, both summed over all rows, 0..

  An edit inserts, deletes or replaces one character (Levenshtein, Soviet
  Physics Doklady 10, 1966). Of several references the one with the fewest edits
  per character counts. 0.0 where neither has a character; a ValueError where
  only the references have none.
  """
  _check(references, predictions)
  edits = characters = 0
  for group, prediction in zip(references, predictions):
    counted = [(edit_distance(reference, prediction), len(reference))
               for reference in group]
    best = min(counted, key=lambda pair: pair[0] / max(pair[1], 1))
    edits += best[0]
    characters += best[1]
  if edits and not characters:
    raise ValueError("the references have no character; an error rate needs "
                     "one")
  return edits / characters if characters else 0.0


def edit_distance(a, b):
  """The fewest insertions, deletions and replacements that make b of a."""
  row = list(range(len(b) + 1))
  for i, char_a in enumerate(a, 1):
    diagonal, row[0] = row[0], i
    for j, char_b in enumerate(b, 1):
      diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1,
                                     diagonal + (char_a != char_b))
  return row[-1]


def bleu(references, predictions):
  """sacrebleu's corpus BLEU with its defaults, 0..100."""
  return _sacrebleu("corpus_bleu", references, predictions)


def chrf(references, predictions):
  """sacrebleu's corpus chrF with its defaults, 0..100."""
  return _sacrebleu("corpus_chrf", references, predictions)


def rouge1(references, predictions):
  """ROUGE-1 F with stemming, the mean over the rows, 0..1."""
  return _rouge("rouge1", references, predictions)


def rouge2(references, predictions):
  """ROUGE-2 F with stemming, the mean over the rows, 0..1."""
  return _rouge("rouge2", references, predictions)


def rouge_l(references, predictions):
  """ROUGE-L F of whole texts with stemming, the mean over the rows, 0..1."""
  return _rouge("rougeL", references, predictions)


METRICS = {
    "exact_match": exact_match,
    "character_error_rate": character_error_rate,
    "bleu": bleu,
    "chrf": chrf,
    "rouge1": rouge1,
    "rouge2": rouge2,
    "rouge_l": rouge_l,
}


def best_of(metric):
  """What picks the best of a metric's values: `max`, or `min` for an error."""
  return min if metric == "character_error_rate" else max


def _sacrebleu(name, references, predictions):
  _check(references, predictions)
  most = max(len(group) for group in references)
  # sacrebleu takes the first references of all rows, then the second ones;
  # None where a row has no more.
  columns = [[group[i] if i < len(group) else None for group in references]
             for i in range(most)]
  try:
    import sacrebleu  # pylint: disable=import-outside-toplevel
  except ImportError as error:
    raise _missing("sacrebleu") from error
  return float(getattr(sacrebleu, name)(predictions, columns).score)


def _rouge(name, references, predictions):
  _check(references, predictions)
  try:
    from rouge_score import rouge_scorer  # pylint: disable=import-outside-toplevel
  except ImportError as error:
    raise _missing("rouge-score") from error
  scorer = rouge_scorer.RougeScorer([name], use_stemmer=True)
  best = [max(scorer.score(reference, prediction)[name].fmeasure
              for reference in group)
          for group, prediction in zip(references, predictions)]
  return float(sum(best) / len(best))


def _missing(package):
  return errors.InputError(
      "this metric needs the package %s, which is not installed: pip install "
      "'adapter-bert[metrics]'" % package)


def _check(references, predictions):
  if not predictions:
    raise ValueError("predictions are empty; a metric needs an example")
  if len(references) != len(predictions):
    raise ValueError("%d lists of references but %d predictions; a metric needs "
                     "one list per prediction"
                     % (len(references), len(predictions)))
  if not all(references):
    raise ValueError("a prediction has no reference")
