"""What builds the site from the package: the API reference, the command line, copied pages, the gallery."""
