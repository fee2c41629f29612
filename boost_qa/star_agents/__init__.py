"""Star-Agents (arXiv 2411.14497): agent pairs that compete for each seed record, scored and evolved."""
