"""Parts of the pretraining of the small base model that Tunewise ships."""
