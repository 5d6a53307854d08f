"""The batch door of the OpenAI API: files of requests, answered by a job."""
