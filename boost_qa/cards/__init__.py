"""What the Hub shows of a dataset or a model: cards from templates, evaluation results, licences."""
