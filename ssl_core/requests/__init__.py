"""What a model is asked over HTTP and in batches: the bodies, their items, and the words of a refusal."""
