"""The fine-tuning door of the OpenAI API: other words for the same jobs."""
