"""From an uploaded file to memory-mapped shards: intake, safety, profile, tokenizer, preparation and loading."""
