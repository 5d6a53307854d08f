"""What this installation can train: objectives, backbones and tasks, straight from the engine's registries."""
