"""Images in, labels out: blocks on the period grid, the engine, merging, files, schedule."""
