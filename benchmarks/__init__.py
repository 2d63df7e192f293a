"""Speed and memory of heedmap, beside the limit and the usual dense way. See README.md."""
