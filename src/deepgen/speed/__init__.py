"""Speed and memory, measured in the same run as the machine's own rate."""
