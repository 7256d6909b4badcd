"""Ways of getting answers: each turns an example into a request, and a request into an answer."""
