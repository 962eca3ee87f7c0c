"""What span.v1 is made of: values that can be read in a text, pages of tokens, candidates, training, decoding."""
