"""A model and its tokenizer, loaded safely; engines that answer."""
