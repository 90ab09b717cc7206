import numpy as np

from curate.report.facts import MOST_HISTOGRAMS, _Gathered, _histograms


def test_measures_that_decided_are_drawn_before_the_many_that_did_not():
    found = _Gathered()
    generator = np.random.default_rng(0)
    names = [*(f"a{i:02d}" for i in range(MOST_HISTOGRAMS + 5)), "short_lines", "filter_percentile", "jsd"]
    for name in names:
        found.values[name].append(generator.normal(size=50))
        found.kept[name].append(np.arange(50) < 20)
    found.examples["heuristics", "short_lines_high"] = (3, 0.7, 0.6, "")
    found.examples["select", "below_filter_percentile"] = (3, 40.0, 60.0, "")
    drawn = [histogram.column for histogram in _histograms(found, "jsd", dict.fromkeys(names, 0))]
    assert len(drawn) == MOST_HISTOGRAMS
    assert drawn[:3] == ["jsd", "filter_percentile", "short_lines"]
