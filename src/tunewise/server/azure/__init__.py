"""Azure OpenAI's dialect: its URLs, words and deployments, over the same jobs, files and models."""
