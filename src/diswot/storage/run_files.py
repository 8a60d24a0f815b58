"""The names of the files and folders in a run folder."""

RUN = "run.json"  # the command, its configuration and its environment
JOURNAL = "study.journal"  # the trials of a search
FOUND = "found.json"  # the result of a search
FRONT = "front"  # its Pareto front, drawn
LATENCIES = "latency.jsonl"  # the latencies that were measured
VERIFICATION = "verify"  # the folder of the short trainings after a search
TRAINED = "trained.json"  # the result of a training
DISTILLED = "distilled"  # the folder of the training from the search's teacher
ALONE = "alone"  # the folder of the training without a teacher
RANKED = "rank.json"  # the result of a rank study
MATRIX = "matrix.json"  # the result of a rank study of many tables
MATRIX_PAGE = "matrix.html"  # its page
SCORES = "scores.csv"  # its scores, beside the accuracies
SCORED_ROWS = "scores.jsonl"  # the architectures that are scored already

FROM_TEACHER, FRESH = "teacher", "fresh"  # recorded starts of a training; others are paths
