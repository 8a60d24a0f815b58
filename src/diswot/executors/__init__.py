"""Who evaluates candidates: this process, worker processes, or Ray actors."""
