"""The engine: self-supervised pretraining, fine-tuning, export and inference.

Usable by hand with no service at all. It imports no web, database or queue library and knows nothing of jobs,
tenants or URLs; its only seam to a platform is `ssl_core.context.RunContext`.
"""
