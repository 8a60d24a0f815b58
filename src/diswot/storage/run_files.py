"""Names of the files in a run folder."""

RUN = "run.json"  # the options of a command, and its versions and hardware
JOURNAL = "study.journal"  # the trials of a search
FOUND = "found.json"  # the result of a search
TRAINED = "trained.json"  # the result of a training
RANKED = "rank.json"  # the result of a rank study
SCORES = "scores.csv"  # the scores and accuracies of a rank study
LATENCIES = "latency.jsonl"  # latencies that a search measured
