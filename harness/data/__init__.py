"""From files to batches: data sets, their draws, and what is done to pixels before a net sees them."""
