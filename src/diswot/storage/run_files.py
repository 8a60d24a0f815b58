"""What the files in a run folder are called."""

RUN = "run.json"  # how a command was told to go, and on what
JOURNAL = "study.journal"  # the trials of a search
FOUND = "found.json"  # what a search found
TRAINED = "trained.json"  # what a training gave
RANKED = "rank.json"  # what a rank study gave
SCORES = "scores.csv"  # the scores behind it
LATENCIES = "latency.jsonl"  # latencies that a search measured
