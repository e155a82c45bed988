"""Labels that come late: what waits for them, how they are counted, and what a label is taken to be until then."""
