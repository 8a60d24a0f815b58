"""Reports: a run as one HTML page, and plots of rank studies and fronts."""
