"""Rules in plain words, for people who meet them first in a report."""

from __future__ import annotations

RULES = {
    "exact_duplicate": "the same text as another row, apart from case and spacing",
    "near_duplicate": "almost the same words as another row that is kept",
    "exact_duplicate_of_known": "the same text as a row of the dataset it was held against",
    "near_duplicate_of_known": "almost the same words as a row of the dataset it was held against",
    "stage_shingles": "no shingles can be made of it: making them fails",
    "semantic_duplicate": "says what another row says that is kept",
    "not_sampled": "outside the sample that the language models looked at",
    "over_budget": "good enough, but the budget was spent on rows that score better or, without a score, were drawn first",
    "replaced": "its rewritten version is published instead",
    "empty_response": "an instruction without an answer",
    "off_manifold": "a swapped row that lies farther from real rows than real rows do",
    "generated_refused": "the model or its server refused to answer",
    "generated_empty": "the model wrote nothing",
    "generated_truncated": "the model ran into its length limit",
    "fence_leak": "the model copied the marks around the text it was given",
    "prompt_leak": "the model repeated its instructions",
    "meta_phrase": "the model talks about itself or about the task",
    "language_changed": "source and generated text are in different languages",
    "length_ratio": "much shorter or longer than its source",
    "too_similar": "a copy of its source",
    "not_similar": "about something else than its source",
    "injection": "says what an order to the model in its source asked for",
    "unquoted": "says as its own what its source only quotes",
    "not_parsed": "has not the form that the task asks for",
    "new_link": "names an address that its source does not",
    "new_number": "states a number that its source does not",
    "new_name": "states a name that its source does not",
    "lost_number": "leaves out a number that its source states",
    "lost_name": "leaves out a name that its source states",
    "quality_not_gained": "no better than its source by the score that was asked for",
    "batch_opening": "of a batch in which too many texts begin alike",
    "batch_distinct": "of a batch that repeats its words",
    "batch_compressed": "of a batch that repeats itself",
    "batch_spread": "of a batch that collapsed onto few of its sources",
    "batch_separable": "of a batch that its words give away",
    "disagrees_with_answer": "the model's answer does not agree with the given one",
    "conflicts_with_concepts": "joins concepts that no chosen row joins",
    "contradicts": "another answer to nearly the same prompt",
    "not_drawn": "not drawn as a random row of a chosen one's length",
}
# Column names that a bound's rule ends in keep their own name: "below_filter_percentile".
PREFIXES = {
    "below_": "less {} than asked for",
    "above_": "more {} than allowed",
    "other_": "another {} than asked for",
    "no_": "no {} known",
    "contaminated_": "holds an item of the benchmark {}",
    "paraphrased_": "says an item of the benchmark {} in other words",
}
SUFFIXES = {"_low": "too little by rule of thumb: {}", "_high": "too much by rule of thumb: {}"}


def meaning(rule: str) -> str:
    """The rule as a half sentence; an unknown rule (a scorer of yours) as its own words."""
    if rule in RULES:
        return RULES[rule]
    for prefix, text in PREFIXES.items():
        if rule.startswith(prefix):
            return text.format(rule.removeprefix(prefix).replace("_", " "))
    for suffix, text in SUFFIXES.items():
        if rule.endswith(suffix):
            return text.format(rule.removesuffix(suffix).replace("_", " "))
    return rule.replace("_", " ")
