"""The networks. They compute, nothing else: no loss, no sampling, no files, no distribution."""
